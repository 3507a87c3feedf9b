(** Chapter 4: convexity in the Gram matrix, and lower bounds from duals as the checker uses them. *)

From Coq Require Import Reals Lra Lia List Arith Bool.
From UFM Require Import Sums Anchor OtherLosses Model Rows Bound Psd.
Import ListNotations.
Open Scope R_scope.

(** ** The gradient in the Gram matrix *)

Definition mem (i : nat) (B : list nat) : bool := existsb (Nat.eqb i) B.

Lemma mem_In i B : mem i B = true <-> In i B.
Proof.
  unfold mem. rewrite existsb_exists. split.
  - intros (x & I & E). apply Nat.eqb_eq in E. subst; auto.
  - intros I. exists i. rewrite Nat.eqb_refl. auto.
Qed.

(** A sum over a batch as a sum over all samples. *)
Lemma sum_mem B m f :
  NoDup B -> (forall i, In i B -> (i < m)%nat) -> sum B f = sum (seq 0 m) (fun i => if mem i B then f i else 0).
Proof.
  intros D. revert m. induction B as [|b B IH]; intros m Lt.
  - simpl. rewrite sum_zero; auto.
  - inversion D; subst. simpl sum. rewrite (IH H2 m) by (intros; apply Lt; right; auto).
    rewrite <- (sum_delta (seq 0 m) b f); [|apply seq_NoDup|apply in_seq; specialize (Lt b (or_introl eq_refl)); lia].
    rewrite <- sum_plus. apply sum_ext. intros i _. unfold mem. simpl.
    destruct (Nat.eqb_spec i b) as [->|]; simpl; [|ring].
    destruct (existsb (Nat.eqb b) B) eqn:X; [|ring]. apply mem_In in X. tauto.
Qed.

(** The derivative of [row] in the cosine with x, for the convex losses. *)
Definition slope (L : loss) (y : nat -> nat) (B : list nat) (i : nat) (g : nat -> R) (x : nat) : R :=
  let c := y i in
  let pos := positives y B i in
  let neg := negatives y B i in
  match L with
  | LogSumExp weight margin tau alpha =>
      weight B c *
      (if (y x =? c)%nat
       then (p_pos alpha (margin B c c) (tau B c) (fun l => margin B c (y l)) pos neg g x - / INR (length pos)) / tau B c
       else p_neg alpha (margin B c c) (tau B c) (fun l => margin B c (y l)) pos neg g x / tau B c)
  | Sigmoid weight scale bias _ =>
      weight B c *
      (if (y x =? c)%nat then - (scale * logistic (- (scale * g x + bias))) else scale * logistic (scale * g x + bias))
  | SupConIn _ _ => 0
  end.

Definition convex (L : loss) : Prop := match L with SupConIn _ _ => False | _ => True end.

(** By anchor, and symmetrised: C of the book. *)
Definition pull (p : problem) (G : nat -> nat -> R) (i l : nat) : R :=
  sum (family p) (fun B =>
    if mem i B && acts (L p) (y p) B (y p i) && mem l B && negb (l =? i)%nat
    then slope (L p) (y p) B i (G i) l else 0).

Definition gradient (p : problem) (G : nat -> nat -> R) (i l : nat) : R := (pull p G i l + pull p G l i) / 2.

Lemma gradient_sym p G : symmetric (gradient p G).
Proof. intros i j. unfold gradient. lra. Qed.

Section Tangent.
Variable p : problem.
Hypothesis W : well_formed p.
Hypothesis L_convex : convex (L p).

Let all := seq 0 (n p).

Lemma row_tangent B i g g0 : In B (family p) -> In i (anchors (L p) (y p) B) ->
  row (L p) (y p) B i g0 + sum (others B i) (fun x => slope (L p) (y p) B i g0 x * (g x - g0 x))
  <= row (L p) (y p) B i g.
Proof.
  intros IB I. apply in_anchors in I. destruct I as [I A]. pose proof (batches_distinct p W B IB) as D.
  rewrite (sum_others (y p) B i) by auto.
  assert (Cl : forall x, In x (positives (y p) B i) -> (y p x =? y p i)%nat = true)
    by (intros x X; apply in_positives in X; apply Nat.eqb_eq; tauto).
  assert (Cn : forall x, In x (negatives (y p) B i) -> (y p x =? y p i)%nat = false)
    by (intros x X; apply in_negatives in X; apply Nat.eqb_neq; tauto).
  pose proof (loss_valid p W) as V.
  destruct (loss_cases (L p)) as [(w & a & tau & alpha & E) | [(w & s & b & ev & E) | (w & tau & E)]];
    rewrite E in V |- *; unfold slope.
  - destruct (acting_lse (L p) (y p) B i D I A _ _ _ _ E) as [P T]. destruct (V B (y p i)) as [Vw Vt].
    pose proof (lse_tangent alpha (a B (y p i) (y p i)) (tau B (y p i)) (fun l => a B (y p i) (y p l))
      (positives (y p) B i) (negatives (y p) B i) Vt P T g g0) as X.
    apply Rmult_le_compat_l with (r := w B (y p i)) in X; [|lra].
    rewrite !Rmult_plus_distr_l, <- !sum_scal in X.
    match type of X with _ <= ?z => change z with (row (LogSumExp w a tau alpha) (y p) B i g) in X end.
    match type of X with ?z + _ + _ <= _ => change z with (row (LogSumExp w a tau alpha) (y p) B i g0) in X end.
    eapply Rle_trans; [|apply X]. right. rewrite Rplus_assoc. f_equal. rewrite Rplus_comm.
    f_equal; apply sum_ext; intros x Ix; [rewrite Cn | rewrite Cl]; auto; ring.
  - destruct V as [Vs Vw]. specialize (Vw B (y p i)).
    pose proof (sigmoid_tangent s b (positives (y p) B i) (negatives (y p) B i) g g0) as X.
    apply Rmult_le_compat_l with (r := w B (y p i)) in X; [|lra].
    rewrite !Rmult_plus_distr_l, <- !sum_scal in X.
    match type of X with _ <= ?z => change z with (row (Sigmoid w s b ev) (y p) B i g) in X end.
    match type of X with ?z + _ + _ <= _ => change z with (row (Sigmoid w s b ev) (y p) B i g0) in X end.
    eapply Rle_trans; [|apply X]. right. rewrite Rplus_assoc. f_equal. rewrite Rplus_comm.
    f_equal; apply sum_ext; intros x Ix; [rewrite Cn | rewrite Cl]; auto; ring.
  - exfalso. revert L_convex. rewrite E. exact (fun f => f).
Qed.

(** Anchor by anchor as a sum over all pairs of samples. *)
Lemma inner_pull G X :
  inner all (pull p G) X
  = sum (family p) (fun B => sum (anchors (L p) (y p) B) (fun i =>
      sum (others B i) (fun x => slope (L p) (y p) B i (G i) x * X i x))).
Proof.
  unfold inner, pull.
  rewrite (sum_ext all _ (fun i => sum (family p) (fun B => sum all (fun j =>
    (if mem i B && acts (L p) (y p) B (y p i) && mem j B && negb (j =? i)%nat
     then slope (L p) (y p) B i (G i) j else 0) * X i j)))).
  2:{ intros i _. rewrite sum_swap. apply sum_ext. intros j _. rewrite sum_scal_r. reflexivity. }
  rewrite sum_swap. apply sum_ext. intros B IB.
  pose proof (batches_distinct p W B IB) as D. pose proof (fun i => batches_below p W B i IB) as Lt.
  unfold anchors. rewrite sum_filter, (sum_mem B (n p)) by auto. apply sum_ext. intros i _.
  destruct (mem i B) eqn:Mi; simpl; [|apply sum_zero; intros; ring].
  destruct (acts (L p) (y p) B (y p i)); simpl; [|apply sum_zero; intros; ring].
  unfold others. rewrite sum_filter, (sum_mem B (n p)) by auto. apply sum_ext. intros j _.
  destruct (mem j B), (negb (j =? i)%nat); simpl; ring.
Qed.

Lemma inner_gradient G X : symmetric X -> inner all (gradient p G) X = inner all (pull p G) X.
Proof.
  intros Sy. transitivity (/ 2 * (inner all (pull p G) X + inner all (fun i j => pull p G j i) X)).
  - rewrite <- inner_plus. unfold inner. rewrite <- sum_scal. apply sum_ext. intros i _.
    rewrite <- sum_scal. apply sum_ext. intros j _. unfold gradient. field.
  - rewrite (inner_transpose all (fun i j => pull p G j i)). cbv beta.
    rewrite (inner_ext all (fun i j => pull p G i j) (pull p G) (fun i j => X j i) X); [lra|].
    intros. rewrite (Sy i j). reflexivity.
Qed.

(** Statement (g): the loss lies above its tangents (theory, 4.1). *)
Theorem tangent G G0 : symmetric G -> symmetric G0 ->
  value (L p) (y p) (family p) G0 + inner all (gradient p G0) (fun i j => G i j - G0 i j)
  <= value (L p) (y p) (family p) G.
Proof.
  intros S S0. rewrite inner_gradient by (intros i j; rewrite (S i j), (S0 i j); reflexivity).
  rewrite inner_pull. unfold value. rewrite <- sum_plus. apply sum_le. intros B IB.
  rewrite <- sum_plus. apply sum_le. intros i I. apply row_tangent; auto.
Qed.

(** Convexity in so many words. *)
Theorem convexity G G' t : symmetric G -> symmetric G' -> 0 <= t <= 1 ->
  value (L p) (y p) (family p) (fun i j => (1 - t) * G i j + t * G' i j)
  <= (1 - t) * value (L p) (y p) (family p) G + t * value (L p) (y p) (family p) G'.
Proof.
  intros S S' T. set (M := fun i j => (1 - t) * G i j + t * G' i j).
  assert (SM : symmetric M) by (intros i j; unfold M; rewrite (S i j), (S' i j); reflexivity).
  pose proof (tangent G M S SM) as X. pose proof (tangent G' M S' SM) as X'.
  apply Rmult_le_compat_l with (r := 1 - t) in X; [|lra].
  apply Rmult_le_compat_l with (r := t) in X'; [|lra].
  assert (Z : (1 - t) * inner all (gradient p M) (fun i j => G i j - M i j)
              + t * inner all (gradient p M) (fun i j => G' i j - M i j) = 0).
  { unfold inner. rewrite <- !sum_scal, <- sum_plus. apply sum_zero. intros i _.
    rewrite <- !sum_scal, <- sum_plus. apply sum_zero. intros j _. unfold M. ring. }
  lra.
Qed.

(** ** Duals *)

(** UFM: the unit ball; UFM+ is [feasible]. *)
Definition in_ball (H : nat -> nat -> R) : Prop := forall i, (i < n p)%nat -> gram (d p) H i i <= 1.

Lemma feasible_in_ball H : feasible p H -> in_ball H.
Proof. intros F i I. apply F, I. Qed.

Section Dual.
Variables (G0 N : nat -> nat -> R) (v : nat -> R).
Hypothesis G0_sym : symmetric G0.
Hypothesis v_nonneg : forall i, 0 <= v i.
Let S := fun i j => (gradient p G0 i j + (if (j =? i)%nat then v i else 0)) + - N i j.
Hypothesis S_psd : PSD all S.

Lemma dual_bound H : in_ball H -> 0 <= inner all N (gram (d p) H) ->
  value (L p) (y p) (family p) G0 - inner all (gradient p G0) G0 - sum all v <= objective p H.
Proof.
  intros F PN. pose proof (tangent (gram (d p) H) G0 (gram_sym _ _) G0_sym) as T.
  rewrite inner_minus_r in T. pose proof (psd_gram all S (d p) H S_psd) as P.
  unfold S in P. rewrite !inner_plus, inner_diagonal in P by apply seq_NoDup.
  assert (Q : inner all (fun i j => - N i j) (gram (d p) H) = - inner all N (gram (d p) H)).
  { rewrite <- (Rmult_1_l (inner all N _)), Ropp_mult_distr_l. unfold inner. rewrite <- sum_scal.
    apply sum_ext. intros i _. rewrite <- sum_scal. apply sum_ext. intros; ring. }
  assert (V : sum all (fun i => v i * gram (d p) H i i) <= sum all v).
  { apply sum_le. intros i I. apply in_seq in I. rewrite <- (Rmult_1_r (v i)) at 2.
    apply Rmult_le_compat_l; auto. apply F. lia. }
  unfold objective. fold all in T. lra.
Qed.

(** Statement (g), UFM+: a feasible dual bounds the loss (theory, 4.5). *)
Theorem matrix_bound H : (forall i j, 0 <= N i j) -> feasible p H ->
  value (L p) (y p) (family p) G0 - inner all (gradient p G0) G0 - sum all v <= objective p H.
Proof.
  intros PN F. apply dual_bound; auto using feasible_in_ball. apply inner_nonneg. intros i j I J.
  apply in_seq in I, J. apply Rmult_le_pos; auto. apply feasible_gram with (p := p); auto; lia.
Qed.

(** Statement (g), UFM: without the ReLU, with N = 0. *)
Theorem matrix_bound_UFM H : (forall i j, N i j = 0) -> in_ball H ->
  value (L p) (y p) (family p) G0 - inner all (gradient p G0) G0 - sum all v <= objective p H.
Proof.
  intros Z F. apply dual_bound; auto. apply inner_nonneg. intros i j _ _. rewrite Z. lra.
Qed.
End Dual.

(** Theorem 2 once more, by a dual that is a Laplacian (theory, 4.4): at the frame the gradient attracts within classes and
    repels across; A is its negative part, N its positive part, v = A 1. *)
Lemma slope_at_frame B i x : In B (family p) -> In i (anchors (L p) (y p) B) -> In x (others B i) ->
  ((y p x = y p i -> slope (L p) (y p) B i (frame_gram (y p) i) x <= 0) /\
   (y p x <> y p i -> 0 <= slope (L p) (y p) B i (frame_gram (y p) i) x)).
Proof.
  intros IB I X. apply in_anchors in I. destruct I as [I A]. pose proof (batches_distinct p W B IB) as D.
  apply in_others in X. destruct X as [Ix Nx]. pose proof (loss_valid p W) as V.
  destruct (loss_cases (L p)) as [(w & a & tau & alpha & E) | [(w & s & b & ev & E) | (w & tau & E)]];
    rewrite E in V |- *; unfold slope.
  - destruct (acting_lse (L p) (y p) B i D I A _ _ _ _ E) as [P T]. destruct (V B (y p i)) as [Vw Vt].
    set (g := frame_gram (y p) i). set (pos := positives (y p) B i) in *. set (neg := negatives (y p) B i) in *.
    set (own := a B (y p i) (y p i)). set (mar := fun l => a B (y p i) (y p l)).
    split; intros Ey.
    + rewrite (proj2 (Nat.eqb_eq _ _) Ey).
      assert (J : In x pos) by (apply in_positives; auto).
      pose proof (softmax_total alpha own (tau B (y p i)) mar pos neg P T g) as Tot.
      rewrite (sum_ext pos _ (fun _ => p_pos alpha own (tau B (y p i)) mar pos neg g x)), sum_const in Tot.
      2:{ intros j Ij. apply in_positives in Ij. unfold p_pos, g, frame_gram.
          replace (y p i =? y p j)%nat with true by (symmetry; apply Nat.eqb_eq; intuition).
          replace (y p i =? y p x)%nat with true by (symmetry; apply Nat.eqb_eq; auto). reflexivity. }
      assert (Nn : 0 <= sum neg (p_neg alpha own (tau B (y p i)) mar pos neg g))
        by (apply sum_nonneg; intros; left; apply p_neg_pos; auto).
      pose proof (INR_length_pos pos P) as LP.
      assert (Q : p_pos alpha own (tau B (y p i)) mar pos neg g x <= / INR (length pos)).
      { apply Rmult_le_reg_l with (INR (length pos)); auto. rewrite Rinv_r by lra. lra. }
      apply Ropp_le_cancel. rewrite Ropp_0.
      replace (- (w B (y p i) * ((p_pos alpha own (tau B (y p i)) mar pos neg g x - / INR (length pos)) / tau B (y p i))))
        with (w B (y p i) * ((/ INR (length pos) - p_pos alpha own (tau B (y p i)) mar pos neg g x) / tau B (y p i)))
        by (unfold Rdiv; ring).
      apply Rmult_le_pos; [lra|]. apply Rmult_le_pos; [lra|]. left; apply Rinv_0_lt_compat; auto.
    + rewrite (proj2 (Nat.eqb_neq _ _) Ey).
      apply Rmult_le_pos; [lra|]. apply Rmult_le_pos; [left; apply p_neg_pos; auto|].
      left; apply Rinv_0_lt_compat; auto.
  - destruct V as [Vs Vw]. specialize (Vw B (y p i)). split; intros Ey.
    + rewrite (proj2 (Nat.eqb_eq _ _) Ey). pose proof (logistic_pos (- (s * frame_gram (y p) i x + b))).
      pose proof (Rmult_lt_0_compat _ _ Vw (Rmult_lt_0_compat _ _ Vs H)). lra.
    + rewrite (proj2 (Nat.eqb_neq _ _) Ey). left.
      apply Rmult_lt_0_compat; auto. apply Rmult_lt_0_compat; auto using logistic_pos.
  - exfalso. revert L_convex. rewrite E. exact (fun f => f).
Qed.

Lemma gradient_at_frame i j :
  (y p i = y p j -> gradient p (frame_gram (y p)) i j <= 0) /\
  (y p i <> y p j -> 0 <= gradient p (frame_gram (y p)) i j).
Proof.
  assert (X : forall i l, (y p l = y p i -> pull p (frame_gram (y p)) i l <= 0) /\
                          (y p l <> y p i -> 0 <= pull p (frame_gram (y p)) i l)).
  { intros a b. unfold pull. split; intros E.
    - apply Rle_trans with (sum (family p) (fun _ => 0)); [|right; apply sum_zero; auto].
      apply sum_le. intros B IB. destruct (mem a B && acts (L p) (y p) B (y p a) && mem b B && negb (b =? a)%nat) eqn:C; [|lra].
      rewrite !andb_true_iff, !mem_In, negb_true_iff, Nat.eqb_neq in C.
      apply slope_at_frame; [auto | apply in_anchors | apply in_others |]; tauto.
    - apply sum_nonneg. intros B IB.
      destruct (mem a B && acts (L p) (y p) B (y p a) && mem b B && negb (b =? a)%nat) eqn:C; [|lra].
      rewrite !andb_true_iff, !mem_In, negb_true_iff, Nat.eqb_neq in C.
      apply slope_at_frame; [auto | apply in_anchors | apply in_others |]; tauto. }
  destruct (X i j) as [A C], (X j i) as [A' C']. unfold gradient. split; intros E.
  - specialize (A (eq_sym E)). specialize (A' E). lra.
  - assert (y p j <> y p i) by auto. specialize (C H). specialize (C' E). lra.
Qed.

Theorem laplacian_bound H : feasible p H ->
  value (L p) (y p) (family p) (frame_gram (y p)) <= objective p H.
Proof.
  intros F. set (F0 := frame_gram (y p)). set (C := gradient p F0).
  set (A := fun i j => if (y p i =? y p j)%nat then - C i j else 0).
  set (N := fun i j => if (y p i =? y p j)%nat then 0 else C i j).
  assert (SyC : symmetric C) by apply gradient_sym.
  assert (SyA : symmetric A) by (intros i j; unfold A; rewrite (SyC i j), Nat.eqb_sym; reflexivity).
  assert (PA : forall i j, 0 <= A i j).
  { intros i j. unfold A. destruct (Nat.eqb_spec (y p i) (y p j)) as [E|]; [|lra].
    destruct (gradient_at_frame i j) as [Y _]. specialize (Y E). fold F0 C in Y. lra. }
  assert (PN : forall i j, 0 <= N i j).
  { intros i j. unfold N. destruct (Nat.eqb_spec (y p i) (y p j)) as [|E]; [lra|].
    destruct (gradient_at_frame i j) as [_ Y]. exact (Y E). }
  assert (SyF : symmetric F0) by (intros i j; unfold F0, frame_gram; rewrite Nat.eqb_sym; reflexivity).
  pose proof (matrix_bound F0 N (fun i => sum all (A i)) SyF) as M.
  eapply Rle_trans; [|apply M; auto].
  - right.
    assert (Q : inner all C F0 + sum all (fun i => sum all (A i)) = 0); [|fold C; lra].
    unfold inner. rewrite <- sum_plus. apply sum_zero. intros i _. rewrite <- sum_plus. apply sum_zero. intros j _.
    unfold A, F0, frame_gram. destruct (_ =? _)%nat; ring.
  - intros i. apply sum_nonneg. auto.
  - intros x. pose proof (laplacian_psd all A (seq_NoDup _ _) SyA PA x) as P.
    eapply Rle_trans; [apply P|]. right. apply inner_ext. intros i j _ _. fold C. unfold laplacian, A at 2, N.
    destruct (y p i =? y p j)%nat; ring.
Qed.
End Tangent.
