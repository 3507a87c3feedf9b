(** Chapter 2, what a gap implies for distances within a class (2.9), and the bound without the ReLU (2.13). *)

From Coq Require Import Reals Lra Lia List Arith Bool.
From UFM Require Import Sums Anchor Model Rows Bound Psd Duality Resistance.
Import ListNotations.
Open Scope R_scope.

(** ** The attraction between two samples, and what a gap implies (2.6, 2.7, 2.9) *)

Definition pair_attraction (p : problem) (i j : nat) : R :=
  sum (family p) (fun B =>
    if mem i B && acts (L p) (y p) B (y p i) && mem j B && negb (j =? i)%nat && (y p j =? y p i)%nat
    then attraction (L p) (y p) (k p) B (y p i) else 0).

Section Spread.
Variable p : problem.
Hypothesis W : well_formed p.

Let all := seq 0 (n p).

Lemma pair_attraction_sym : symmetric (pair_attraction p).
Proof.
  intros i j. apply sum_ext. intros B _. destruct (Nat.eqb_spec (y p i) (y p j)) as [E|N].
  - rewrite (proj2 (Nat.eqb_eq (y p j) (y p i)) (eq_sym E)), E, (Nat.eqb_sym i j).
    destruct (mem i B), (mem j B), (acts (L p) (y p) B (y p j)), (negb (j =? i)%nat); reflexivity.
  - rewrite (proj2 (Nat.eqb_neq (y p j) (y p i)) (not_eq_sym N)). rewrite !andb_false_r. reflexivity.
Qed.

Lemma pair_attraction_nonneg i j : 0 <= pair_attraction p i j.
Proof.
  apply sum_nonneg. intros B IB. destruct (_ && _ && _ && _ && _)%bool eqn:C; [|lra].
  rewrite !andb_true_iff, !mem_In in C. destruct C as [[[[I Ac] _] _] _].
  apply attraction_nonneg; auto; [apply (loss_valid p W) | apply (batches_distinct p W); auto |].
  intros; apply (labels_below p W), (batches_below p W B); auto.
Qed.

(** The within-class part of the stability inequality, over pairs of samples. *)
Lemma attraction_part H : feasible p H ->
  inner all (pair_attraction p) (fun i j => 1 - gram (d p) H i j) <= amiss p (gram (d p) H).
Proof.
  intros F. pose proof (feasible_gram p H F) as GI.
  apply Rle_trans with (sum (family p) (fun B => sum (anchors (L p) (y p) B) (fun i =>
    sum (positives (y p) B i) (fun j => attraction (L p) (y p) (k p) B (y p i) * (1 - gram (d p) H i j))))).
  - right. unfold inner, pair_attraction.
    rewrite (sum_ext all _ (fun i => sum (family p) (fun B => sum all (fun j =>
      (if mem i B && acts (L p) (y p) B (y p i) && mem j B && negb (j =? i)%nat && (y p j =? y p i)%nat
       then attraction (L p) (y p) (k p) B (y p i) else 0) * (1 - gram (d p) H i j))))).
    2:{ intros i _. rewrite sum_swap. apply sum_ext. intros j _. rewrite sum_scal_r. reflexivity. }
    rewrite sum_swap. apply sum_ext. intros B IB.
    pose proof (batches_distinct p W B IB) as D. pose proof (fun i => batches_below p W B i IB) as Lt.
    unfold anchors. rewrite sum_filter, (sum_mem B (n p)) by auto. apply sum_ext. intros i _.
    destruct (mem i B) eqn:Mi; simpl; [|apply sum_zero; intros; ring].
    destruct (acts (L p) (y p) B (y p i)); simpl; [|apply sum_zero; intros; ring].
    unfold positives, others. rewrite !sum_filter, (sum_mem B (n p)) by auto. apply sum_ext. intros j _.
    destruct (mem j B), (negb (j =? i)%nat), (y p j =? y p i)%nat; simpl; ring.
  - apply sum_le. intros B IB. apply sum_le. intros i I.
    destruct (anchor_amiss_nonneg p W _ GI B i IB I) as [N _]. apply sum_nonneg in N. lra.
Qed.

(** Statement (f): ||h_i - h_j||^2 <= R eps for any R that resists between i and j in the network of attractions. *)
Theorem spread H eps rho i j :
  feasible p H -> objective p H - loss_bound p <= eps -> resists all (pair_attraction p) rho i j ->
  sum (seq 0 (d p)) (fun r => (H i r - H j r) ^ 2) <= rho * eps.
Proof.
  intros F E [P Rs]. pose proof (stability p W H F) as S. pose proof (attraction_part H F) as T.
  assert (Q : sum (seq 0 (d p)) (fun r => energy all (pair_attraction p) (fun a => H a r)) <= eps).
  { eapply Rle_trans; [|eapply Rle_trans; [exact T|lra]]. unfold energy, inner.
    rewrite sum_scal. rewrite sum_swap.
    rewrite <- sum_scal. apply sum_le. intros a Ia. rewrite sum_swap, <- sum_scal. apply sum_le. intros b Ib.
    rewrite sum_scal, gram_distance. apply in_seq in Ia, Ib.
    assert (Da : gram (d p) H a a <= 1) by (apply F; lia). assert (Db : gram (d p) H b b <= 1) by (apply F; lia).
    pose proof (pair_attraction_nonneg a b).
    replace (/ 2 * (pair_attraction p a b * (gram (d p) H a a + gram (d p) H b b - 2 * gram (d p) H a b)))
      with (pair_attraction p a b * (/ 2 * (gram (d p) H a a + gram (d p) H b b - 2 * gram (d p) H a b))) by ring.
    apply Rmult_le_compat_l; lra. }
  apply Rle_trans with (sum (seq 0 (d p)) (fun r => rho * energy all (pair_attraction p) (fun a => H a r))).
  - apply sum_le. intros r _. apply (Rs (fun a => H a r)).
  - rewrite sum_scal. apply Rmult_le_compat_l; auto.
Qed.

(** ** Without the ReLU *)

(** Statement (a) without h >= 0: plain SCL at tau is at least its bound for UFM+ at tau / 2, where e^{-2/tau} stands in
    place of e^{-1/tau} ([Bound.loss_bound_SCL] has the closed form). *)
Theorem elementary_bound tau H :
  L p = SCL tau -> in_ball p H ->
  loss_bound (Problem (n p) (k p) (d p) (y p) (family p) (SCL (tau / 2))) <= objective p H.
Proof.
  intros E F. pose proof (loss_valid p W) as V. rewrite E in V. simpl in V. destruct (V [] 0%nat) as [_ T].
  set (p' := Problem (n p) (k p) (d p) (y p) (family p) (SCL (tau / 2))).
  assert (W' : well_formed p').
  { constructor; try apply W. simpl. intros; lra. }
  rewrite (loss_bound_anchors p' W'). unfold objective, value. rewrite E. simpl family. simpl L. simpl y. simpl k.
  apply sum_le. intros B IB. change (anchors (SCL (tau / 2)) (y p) B) with (anchors (SCL tau) (y p) B).
  apply sum_le. intros i I. apply in_anchors in I. destruct I as [I A]. pose proof (batches_distinct p W B IB) as D.
  assert (Y : forall l, In l B -> (y p l < k p)%nat)
    by (intros; apply (labels_below p W), (batches_below p W B); auto).
  destruct (acting_lse (SCL tau) (y p) B i D I A _ _ _ _ eq_refl) as [P _].
  set (pos := positives (y p) B i) in *. set (neg := negatives (y p) B i). set (g := gram (d p) H i).
  assert (Le : forall j, In j B -> -1 <= g j <= 1).
  { intros j J. pose proof (batches_below p W B i IB I). pose proof (batches_below p W B j IB J).
    split; [apply gram_ge_m1 | apply gram_le_1]; auto. }
  assert (Mg : mean pos g <= 1).
  { apply mean_le_1; auto. intros j J. apply in_positives in J. apply Le; tauto. }
  pose proof (lse_partition_shifted true 0 tau (fun _ => 0) pos neg T P (or_introl eq_refl) g) as S.
  pose proof (lse_partition_pos true 0 tau (fun _ => 0) pos neg P (or_introl eq_refl) g) as Pp.
  change (row (SCL tau) (y p) B i g) with (1 * lse true 0 tau (fun _ => 0) pos neg g).
  unfold floor, SCL. rewrite (Z_lse (y p) (k p) B i D Y I (fun _ _ _ => 0) (fun _ _ => tau / 2) true).
  fold pos neg. apply Rmult_le_compat_l; [lra|]. unfold lse. rewrite S.
  rewrite S in Pp. pose proof (exp_pos (mean pos g / tau)) as Pe.
  assert (Ps : 0 < lse_Z true 0 tau (fun _ => 0) pos neg + lse_above true 0 tau (fun _ => 0) pos neg g).
  { apply Rmult_lt_reg_l with (exp (mean pos g / tau)); lra. }
  rewrite ln_mult, ln_exp by auto.
  replace (mean pos (fun j => g j / tau)) with (mean pos g / tau).
  2:{ pose proof (INR_length_pos pos P). unfold mean, Rdiv. rewrite sum_scal_r. field. lra. }
  replace (mean pos g / tau + ln (lse_Z true 0 tau (fun _ => 0) pos neg + lse_above true 0 tau (fun _ => 0) pos neg g)
    - mean pos g / tau) with (ln (lse_Z true 0 tau (fun _ => 0) pos neg + lse_above true 0 tau (fun _ => 0) pos neg g)) by ring.
  apply ln_le; [apply (lse_Z_pos true 0 (tau / 2) (fun _ => 0) pos neg P (or_introl eq_refl))|].
  unfold lse_Z, lse_above. rewrite exp_0.
  assert (Ph : 0 <= sum pos (fun j => phi ((g j - mean pos g) / tau))) by (apply sum_nonneg; intros; apply phi_nonneg).
  assert (N : sum neg (fun _ => exp (0 - 1 / (tau / 2)))
    <= sum neg (fun _ => exp (0 - 1 / tau)) + sum neg (fun l => exp (0 - 1 / tau) * expm1 ((g l + (1 - mean pos g)) / tau))).
  { rewrite <- sum_plus. apply sum_le. intros l J. apply in_negatives in J. destruct (Le l (proj1 J)) as [Ge _].
    unfold expm1. replace (exp (0 - 1 / tau) + exp (0 - 1 / tau) * (exp ((g l + (1 - mean pos g)) / tau) - 1))
      with (exp (0 - 1 / tau) * exp ((g l + (1 - mean pos g)) / tau)) by ring.
    rewrite <- exp_plus.
    assert (X : 0 - 1 / (tau / 2) <= 0 - 1 / tau + (g l + (1 - mean pos g)) / tau).
    { replace (0 - 1 / (tau / 2)) with (-2 * / tau) by (field; lra).
      replace (0 - 1 / tau + (g l + (1 - mean pos g)) / tau) with ((g l - mean pos g) * / tau) by (field; lra).
      apply Rmult_le_compat_r; [left; apply Rinv_0_lt_compat; auto | lra]. }
    destruct X as [X|X]; [left; apply exp_increasing; auto | rewrite X; lra]. }
  lra.
Qed.
End Spread.
