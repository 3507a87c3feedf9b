(** Chapter 2: the bound, its equality case, and the stability of the loss around it. *)

From Coq Require Import Reals Lra Lia List Arith Bool.
From UFM Require Import Sums Anchor OtherLosses Model Rows.
Import ListNotations.
Open Scope R_scope.

(** sum_B sum_{c acts in B} n_{B,c} floor_{B,c}. *)
Definition loss_bound (p : problem) : R :=
  sum (family p) (fun B =>
    sum (filter (acts (L p) (y p) B) (seq 0 (k p))) (fun c => INR (count (y p) B c) * floor (L p) (y p) (k p) B c)).

(** ** The whole loss *)

Section Theorems.
Variable p : problem.
Hypothesis W : well_formed p.

(** The bound as a sum over anchors. *)
Lemma loss_bound_anchors :
  loss_bound p =
  sum (family p) (fun B => sum (anchors (L p) (y p) B) (fun i => floor (L p) (y p) (k p) B (y p i))).
Proof.
  apply sum_ext. intros B IB. unfold anchors. rewrite !sum_filter, (sum_by_class (y p) (k p) B).
  2:{ intros i I. apply (labels_below p W), (batches_below p W B); auto. }
  apply sum_ext. intros c _.
  rewrite (sum_ext (filter _ B) _ (fun _ => if acts (L p) (y p) B c then floor (L p) (y p) (k p) B c else 0)).
  - rewrite sum_const. unfold count, of_class. destruct (acts _ _ _ _); ring.
  - intros i I. apply filter_In in I. destruct I as [_ I]. apply Nat.eqb_eq in I. rewrite I. reflexivity.
Qed.

Section Gram.
Variable G : nat -> nat -> R.
Hypothesis G_in : forall i j, (i < n p)%nat -> (j < n p)%nat -> 0 <= G i j <= 1.

Let v := value (L p) (y p) (family p) G.

(** Everything the lemmas on one anchor ask for. *)
Lemma anchor_facts B i :
  In B (family p) -> In i (anchors (L p) (y p) B) ->
  NoDup B /\ (forall l, In l B -> (y p l < k p)%nat) /\ In i B /\ acts (L p) (y p) B (y p i) = true /\
  (forall l, In l B -> 0 <= G i l <= 1).
Proof.
  intros IB I. apply in_anchors in I. destruct I as [I A].
  split; [apply (batches_distinct p W); auto|].
  split; [intros; apply (labels_below p W), (batches_below p W B); auto|].
  split; [auto|]. split; [auto|].
  intros; apply G_in; apply (batches_below p W B); auto.
Qed.

(** The slopes of all anchors, what is amiss weighed with them. *)
Definition amiss (G : nat -> nat -> R) : R :=
  sum (family p) (fun B => sum (anchors (L p) (y p) B) (fun i =>
    sum (negatives (y p) B i) (fun l => repulsion (L p) (y p) (k p) B (y p i) (y p l) * G i l)
    + sum (positives (y p) B i) (fun j => attraction (L p) (y p) (k p) B (y p i) * (1 - G i j)))).

(** Statement (f): the stability inequality (theory, 2.7). *)
Theorem stability_gram : amiss G <= v - loss_bound p.
Proof.
  rewrite loss_bound_anchors. unfold v, value, amiss. rewrite <- sum_minus.
  apply sum_le. intros B IB. rewrite <- sum_minus. apply sum_le. intros i I.
  destruct (anchor_facts B i IB I) as (? & ? & ? & ? & ?).
  apply row_stability; auto. apply (loss_valid p W).
Qed.

(** Every term of it is nonnegative, hence the bound, and each pair alone. *)
Lemma anchor_amiss_nonneg B i :
  In B (family p) -> In i (anchors (L p) (y p) B) ->
  (forall l, In l (negatives (y p) B i) -> 0 <= repulsion (L p) (y p) (k p) B (y p i) (y p l) * G i l) /\
  (forall j, In j (positives (y p) B i) -> 0 <= attraction (L p) (y p) (k p) B (y p i) * (1 - G i j)).
Proof.
  intros IB I. destruct (anchor_facts B i IB I) as (? & ? & ? & ? & ?).
  apply row_terms; auto. apply (loss_valid p W).
Qed.

Lemma amiss_term B i x :
  In B (family p) -> In i (anchors (L p) (y p) B) ->
  (In x (negatives (y p) B i) -> repulsion (L p) (y p) (k p) B (y p i) (y p x) * G i x <= amiss G) /\
  (In x (positives (y p) B i) -> attraction (L p) (y p) (k p) B (y p i) * (1 - G i x) <= amiss G).
Proof.
  intros IB I.
  assert (N : forall B i, In B (family p) -> In i (anchors (L p) (y p) B) ->
    0 <= sum (negatives (y p) B i) (fun l => repulsion (L p) (y p) (k p) B (y p i) (y p l) * G i l) /\
    0 <= sum (positives (y p) B i) (fun j => attraction (L p) (y p) (k p) B (y p i) * (1 - G i j))).
  { intros B' i' IB' I'. destruct (anchor_amiss_nonneg B' i' IB' I'). split; apply sum_nonneg; auto. }
  assert (T : sum (negatives (y p) B i) (fun l => repulsion (L p) (y p) (k p) B (y p i) (y p l) * G i l)
    + sum (positives (y p) B i) (fun j => attraction (L p) (y p) (k p) B (y p i) * (1 - G i j)) <= amiss G).
  { unfold amiss. eapply Rle_trans; [|apply sum_term_le with (x := B); auto].
    - apply (sum_term_le (anchors (L p) (y p) B) (fun i =>
        sum (negatives (y p) B i) (fun l => repulsion (L p) (y p) (k p) B (y p i) (y p l) * G i l)
        + sum (positives (y p) B i) (fun j => attraction (L p) (y p) (k p) B (y p i) * (1 - G i j)))); auto.
      intros z Iz. destruct (N B z IB Iz). lra.
    - intros B' IB'. apply sum_nonneg. intros z Iz. destruct (N B' z IB' Iz). lra. }
  destruct (N B i IB I). destruct (anchor_amiss_nonneg B i IB I) as [A C]. split; intros X.
  - pose proof (sum_term_le _ (fun l => repulsion (L p) (y p) (k p) B (y p i) (y p l) * G i l) x A X). lra.
  - pose proof (sum_term_le _ (fun j => attraction (L p) (y p) (k p) B (y p i) * (1 - G i j)) x C X). lra.
Qed.

(** Statement (a). *)
Theorem bound_gram : loss_bound p <= v.
Proof.
  pose proof stability_gram as S.
  assert (P : 0 <= amiss G); [|lra].
  apply sum_nonneg. intros B IB. apply sum_nonneg. intros i I.
  destruct (anchor_amiss_nonneg B i IB I) as [A C]. apply sum_nonneg in A. apply sum_nonneg in C. lra.
Qed.

(** Statement (c), for Gram matrices: equality holds iff every anchor is tight. *)
Theorem equality_gram :
  v = loss_bound p <->
  (forall B i, In B (family p) -> In i (anchors (L p) (y p) B) -> tight (L p) (y p) B i (G i)).
Proof.
  split.
  - intros E B i IB I.
    assert (P : forall B i, In B (family p) -> In i (anchors (L p) (y p) B) ->
      0 <= row (L p) (y p) B i (G i) - floor (L p) (y p) (k p) B (y p i)).
    { intros B' i' IB' I'. destruct (anchor_facts B' i' IB' I') as (? & ? & ? & ? & ?).
      assert (floor (L p) (y p) (k p) B' (y p i') <= row (L p) (y p) B' i' (G i')); [|lra].
      apply row_bound; auto. apply (loss_valid p W). }
    rewrite loss_bound_anchors in E. unfold v, value in E. apply Rminus_diag_eq in E.
    rewrite <- sum_minus in E.
    apply (sum_zero_each _ _) with (x := B) in E; auto.
    2:{ intros B' IB'. rewrite <- sum_minus. apply sum_nonneg; auto. }
    rewrite <- sum_minus in E.
    apply (sum_zero_each _ _) with (x := i) in E; auto.
    destruct (anchor_facts B i IB I) as (? & ? & ? & ? & ?).
    apply (row_equality _ _ (k p)); auto; [apply (loss_valid p W) | lra].
  - intros T. rewrite loss_bound_anchors. unfold v, value.
    apply sum_ext. intros B IB. apply sum_ext. intros i I.
    destruct (anchor_facts B i IB I) as (? & ? & ? & ? & ?).
    apply row_tight; auto. apply (loss_valid p W).
Qed.
End Gram.

Section Embedding.
Variable H : nat -> nat -> R.
Hypothesis F : feasible p H.

(** Statement (a): Theorems 1 and 2, for every loss of the family (theory, 2.2 and 2.14). *)
Theorem bound : loss_bound p <= objective p H.
Proof. apply bound_gram, feasible_gram, F. Qed.

(** Statement (c) (theory, 2.5 and 2.14). *)
Theorem equality :
  objective p H = loss_bound p <->
  (forall B i, In B (family p) -> In i (anchors (L p) (y p) B) -> tight (L p) (y p) B i (gram (d p) H i)).
Proof. apply equality_gram, feasible_gram, F. Qed.

(** Statement (f). *)
Theorem stability : amiss (gram (d p) H) <= objective p H - loss_bound p.
Proof. apply stability_gram, feasible_gram, F. Qed.

(** Statement (f), pair by pair: what a gap implies (theory, 2.8). *)
Theorem gap_implies eps B i x :
  objective p H - loss_bound p <= eps -> In B (family p) -> In i (anchors (L p) (y p) B) ->
  (In x (negatives (y p) B i) -> 0 <= gram (d p) H i x <= eps / repulsion (L p) (y p) (k p) B (y p i) (y p x)) /\
  (In x (positives (y p) B i) -> negatives (y p) B i <> [] \/ match L p with Sigmoid _ _ _ _ => True | _ => False end ->
     1 - eps / attraction (L p) (y p) (k p) B (y p i) <= gram (d p) H i x <= 1).
Proof.
  intros E IB I. pose proof stability as S.
  pose proof (feasible_gram p H F) as GI.
  destruct (amiss_term _ GI B i x IB I) as [A C].
  destruct (anchor_facts _ GI B i IB I) as (D & Y & I' & AC & _).
  pose proof (loss_valid p W) as V.
  assert (Q : forall u w, 0 < w -> w * u <= eps -> u <= eps / w).
  { intros u w P Hu. apply Rmult_le_reg_l with w; auto. replace (w * (eps / w)) with eps by (field; lra). auto. }
  split.
  - intros X. pose proof X as X'. apply in_negatives in X'. specialize (A X).
    split; [apply GI; apply (batches_below p W B); tauto|].
    apply Q; [apply repulsion_pos; auto | lra].
  - intros X N. pose proof X as X'. apply in_positives in X'. specialize (C X).
    split; [|apply GI; apply (batches_below p W B); tauto].
    assert (1 - gram (d p) H i x <= eps / attraction (L p) (y p) (k p) B (y p i)); [|lra].
    apply Q; [apply attraction_pos; auto | lra].
Qed.

(** Statement (b) (theory, 2.3). *)
Theorem frame_attains : is_frame p H -> objective p H = loss_bound p.
Proof.
  intros Fr. apply equality. intros B i IB I. apply in_anchors in I. destruct I as [I _].
  pose proof (batches_below p W B) as LB.
  assert (P : forall j, In j (positives (y p) B i) -> gram (d p) H i j = 1).
  { intros j J. apply in_positives in J. destruct J as (J & _ & E). rewrite Fr by auto. unfold frame_gram.
    rewrite E, Nat.eqb_refl. reflexivity. }
  split.
  - intros _. split; auto. intros l J. apply in_negatives in J. destruct J as (J & E). rewrite Fr by auto.
    unfold frame_gram. destruct (Nat.eqb_spec (y p i) (y p l)); congruence.
  - destruct (L p); auto. destruct alpha; auto. intros j j' J J'. rewrite !P; auto.
Qed.
End Embedding.

(** The frame on the first k axes of R^d, d >= k, is feasible; so the minimisers are the points that attain the bound. *)
Lemma axes_feasible col : (forall i, (i < n p)%nat -> (col i < d p)%nat) -> feasible p (axes col).
Proof.
  intros C i I. split.
  - intros r _. unfold axes. destruct (_ =? _)%nat; lra.
  - rewrite gram_axes by auto. rewrite Nat.eqb_refl. lra.
Qed.

Lemma axes_frame : (k p <= d p)%nat -> is_frame p (axes (y p)).
Proof.
  intros D i j I _. rewrite gram_axes; [reflexivity|]. pose proof (labels_below p W i I). lia.
Qed.

Theorem bound_attained : (k p <= d p)%nat -> feasible p (axes (y p)) /\ objective p (axes (y p)) = loss_bound p.
Proof.
  intros D. assert (F : feasible p (axes (y p))).
  { apply axes_feasible. intros i I. pose proof (labels_below p W i I). lia. }
  split; auto. apply frame_attains; auto using axes_frame.
Qed.

Theorem minimisers_attain H :
  (k p <= d p)%nat -> (minimiser p H <-> feasible p H /\ objective p H = loss_bound p).
Proof.
  intros D. destruct (bound_attained D) as [F E]. split.
  - intros [F' M]. split; auto. specialize (M _ F). pose proof (bound H F'). lra.
  - intros [F' E']. split; auto. intros H' F''. rewrite E'. apply bound, F''.
Qed.
End Theorems.

(** ** The excess identity, for the log-sum-exp family, and the bound of plain SCL *)

(** Statement (f): loss minus bound as a sum of logarithms of what is amiss; of any real Gram matrix (theory, 2.4). *)
Theorem excess_identity p weight margin tau alpha G :
  well_formed p -> L p = LogSumExp weight margin tau alpha ->
  value (L p) (y p) (family p) G - loss_bound p =
  sum (family p) (fun B => sum (anchors (L p) (y p) B) (fun i =>
    let c := y p i in
    let pos := positives (y p) B i in
    let neg := negatives (y p) B i in
    let g := mean pos (G i) in
    weight B c * log1p (
      ((if alpha then exp (margin B c c) * sum pos (fun j => phi ((G i j - g) / tau B c)) else 0)
       + sum neg (fun l => exp (margin B c (y p l) - 1 / tau B c) * expm1 ((G i l + (1 - g)) / tau B c)))
      / Z margin tau alpha (y p) (k p) B c))).
Proof.
  intros W E. rewrite loss_bound_anchors by auto. unfold value. rewrite <- sum_minus.
  apply sum_ext. intros B IB. rewrite <- sum_minus. apply sum_ext. intros i I. cbv zeta.
  apply in_anchors in I. destruct I as [I A].
  pose proof (batches_distinct p W B IB) as D.
  assert (Y : forall l, In l B -> (y p l < k p)%nat)
    by (intros; apply (labels_below p W), (batches_below p W B); auto).
  destruct (acting_lse (L p) (y p) B i D I A _ _ _ _ E) as [P T].
  pose proof (loss_valid p W) as V. rewrite E in V. destruct (V B (y p i)) as [_ T'].
  pose proof (lse_excess alpha (margin B (y p i) (y p i)) (tau B (y p i)) (fun l => margin B (y p i) (y p l))
    (positives (y p) B i) (negatives (y p) B i) T' P T (G i)) as X.
  unfold lse_above in X. rewrite E. unfold floor. rewrite Z_lse by auto. rewrite <- X. unfold row, lse, lse_partition. ring.
Qed.

(** Theorems 1 and 2 of the paper: sum_B sum_{c: n_{B,c} >= 2} n_{B,c} log ((n_{B,c} - 1) + (n_B - n_{B,c}) e^{-1/tau}). *)
Theorem loss_bound_SCL p tau :
  well_formed p -> L p = SCL tau ->
  loss_bound p =
  sum (family p) (fun B => sum (filter (fun c => 2 <=? count (y p) B c)%nat (seq 0 (k p))) (fun c =>
    INR (count (y p) B c) *
    ln ((INR (count (y p) B c) - 1) + (INR (length B) - INR (count (y p) B c)) * exp (- (1 / tau))))).
Proof.
  intros W E. unfold loss_bound. rewrite E. apply sum_ext. intros B IB.
  rewrite (filter_ext _ (fun c => (2 <=? count (y p) B c)%nat))
    by (intros c; unfold acts, SCL; rewrite orb_true_l, andb_true_r; reflexivity).
  apply sum_ext. intros c I. apply filter_In in I. destruct I as [Ic A]. apply Nat.leb_le in A. apply in_seq in Ic.
  assert (Y : forall l, In l B -> (y p l < k p)%nat)
    by (intros; apply (labels_below p W), (batches_below p W B); auto).
  unfold floor, SCL, Z. rewrite Rmult_1_l, exp_0, minus_INR by lia. change (INR 1) with 1. rewrite Rmult_1_r.
  do 3 f_equal. rewrite (sum_ext _ _ (fun e => INR (count (y p) B e) * exp (- (1 / tau))))
    by (intros; f_equal; f_equal; ring).
  rewrite sum_scal_r. f_equal.
  assert (S : INR (length B) = sum (seq 0 (k p)) (fun e => INR (count (y p) B e))).
  { rewrite <- (Rmult_1_r (INR (length B))), <- (sum_const B 1), (sum_by_class (y p) (k p)) by auto.
    apply sum_ext. intros e _. rewrite sum_const, Rmult_1_r. reflexivity. }
  rewrite S, (sum_pick (seq 0 (k p)) c); [unfold other_classes; ring | apply seq_NoDup | apply in_seq; lia].
Qed.
