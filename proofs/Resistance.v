(** Chapter 2, 2.9: effective resistance between samples, without potentials or flows. *)

From Coq Require Import Reals Lra Lia List Arith Bool.
From UFM Require Import Sums Anchor Psd.
Import ListNotations.
Open Scope R_scope.

(** If p^2 <= alpha X and r^2 <= gamma Y, then 2 p r <= alpha Y + gamma X. *)
Lemma cross_term alpha gamma X Y p r :
  0 <= alpha -> 0 <= gamma -> 0 <= X -> 0 <= Y -> p ^ 2 <= alpha * X -> r ^ 2 <= gamma * Y ->
  2 * p * r <= alpha * Y + gamma * X.
Proof.
  intros A G PX PY P R.
  assert (S : 0 <= alpha * Y + gamma * X) by (apply Rplus_le_le_0_compat; apply Rmult_le_pos; auto).
  apply Rsqr_incr_0_var; auto. unfold Rsqr.
  assert (M : p ^ 2 * r ^ 2 <= alpha * X * (gamma * Y)) by (apply Rmult_le_compat; auto using pow2_ge_0).
  assert (D : 0 <= (alpha * Y - gamma * X) ^ 2) by apply pow2_ge_0.
  replace (2 * p * r * (2 * p * r)) with (4 * (p ^ 2 * r ^ 2)) by ring.
  replace ((alpha * Y + gamma * X) * (alpha * Y + gamma * X))
    with ((alpha * Y - gamma * X) ^ 2 + 4 * (alpha * X * (gamma * Y))) by ring. lra.
Qed.

(** ** Effective resistance *)

(** [resists l A R i j]: whatever the potential x, the squared difference between i and j is at most R times the energy, the
    sum over unordered pairs of A_ab (x_a - x_b)^2. The least such R is the effective resistance. *)
Definition energy (l : list nat) (A : nat -> nat -> R) (x : nat -> R) : R :=
  / 2 * inner l A (fun a b => (x a - x b) ^ 2).

Definition resists (l : list nat) (A : nat -> nat -> R) (rho : R) (i j : nat) : Prop :=
  0 <= rho /\ forall x, (x i - x j) ^ 2 <= rho * energy l A x.

Section Resistance.
Variables (l : list nat) (A : nat -> nat -> R).
Hypothesis l_distinct : NoDup l.
Hypothesis A_sym : symmetric A.
Hypothesis A_nonneg : forall i j, 0 <= A i j.

Lemma energy_nonneg x : 0 <= energy l A x.
Proof.
  apply Rmult_le_pos; [lra|]. apply inner_nonneg. intros. apply Rmult_le_pos; auto using pow2_ge_0.
Qed.

Lemma resists_refl i : resists l A 0 i i.
Proof. split; [lra|]. intros x. replace (x i - x i) with 0 by ring. lra. Qed.

Lemma resists_sym rho i j : resists l A rho i j -> resists l A rho j i.
Proof. intros [P R]. split; auto. intros x. replace ((x j - x i) ^ 2) with ((x i - x j) ^ 2) by ring. auto. Qed.

Lemma resists_weaken rho rho' i j : rho <= rho' -> resists l A rho i j -> resists l A rho' i j.
Proof.
  intros Le [P R]. split; [lra|]. intros x. eapply Rle_trans; [apply R|].
  apply Rmult_le_compat_r; auto using energy_nonneg.
Qed.

(** Resistance is a metric: cut the potential at its value in the middle. *)
Theorem resists_trans rho rho' i j m : resists l A rho i j -> resists l A rho' j m -> resists l A (rho + rho') i m.
Proof.
  intros [P R] [P' R']. split; [lra|]. intros x. set (c := x j).
  set (u := fun a => Rmax (x a) c). set (w := fun a => Rmin (x a) c).
  assert (E : energy l A u + energy l A w <= energy l A x).
  { unfold energy. rewrite <- Rmult_plus_distr_l. apply Rmult_le_compat_l; [lra|].
    unfold inner. rewrite <- sum_plus. apply sum_le. intros a _. rewrite <- sum_plus. apply sum_le. intros b _.
    rewrite <- Rmult_plus_distr_l. apply Rmult_le_compat_l; auto. unfold u, w, Rmax, Rmin.
    destruct (Rle_dec (x a) c), (Rle_dec (x b) c); nra. }
  pose proof (energy_nonneg u) as Eu. pose proof (energy_nonneg w) as Ew. pose proof (energy_nonneg x) as Ex.
  pose proof (R u) as Ru. pose proof (R w) as Rw. pose proof (R' u) as Ru'. pose proof (R' w) as Rw'.
  pose proof (R x) as Rx. pose proof (R' x) as Rx'. fold c in Rx, Rx'.
  assert (Both : forall a b e1 e2, 0 <= e1 -> 0 <= e2 -> e1 + e2 <= energy l A x -> a ^ 2 <= rho * e1 -> b ^ 2 <= rho' * e2 ->
    (a + b) ^ 2 <= (rho + rho') * energy l A x).
  { intros a b e1 e2 P1 P2 Le Ha Hb. pose proof (cross_term rho rho' e1 e2 a b P P' P1 P2 Ha Hb) as X.
    apply Rle_trans with ((rho + rho') * (e1 + e2)); [|apply Rmult_le_compat_l; lra].
    replace ((a + b) ^ 2) with (a ^ 2 + 2 * a * b + b ^ 2) by ring. lra. }
  assert (uj : u j = c) by (unfold u, c, Rmax; destruct (Rle_dec _ _); auto).
  assert (wj : w j = c) by (unfold w, c, Rmin; destruct (Rle_dec _ _); auto).
  rewrite uj, ?wj in *.
  assert (Lx : rho * energy l A x <= (rho + rho') * energy l A x) by (apply Rmult_le_compat_r; lra).
  assert (Lx' : rho' * energy l A x <= (rho + rho') * energy l A x) by (apply Rmult_le_compat_r; lra).
  destruct (Rle_dec (x i) c) as [Li|Li], (Rle_dec (x m) c) as [Lm|Lm].
  - (* both below *)
    destruct (Rle_dec (x i) (x m)); [apply Rle_trans with ((x i - c) ^ 2) | apply Rle_trans with ((c - x m) ^ 2)]; nra.
  - (* i below, m above *)
    assert (wi : w i = x i) by (unfold w, Rmin; destruct (Rle_dec _ _); tauto).
    assert (um : u m = x m) by (unfold u, Rmax; destruct (Rle_dec _ _); tauto).
    rewrite wi in Rw. rewrite um in Ru'. replace (x i - x m) with ((x i - c) + (c - x m)) by ring.
    apply (Both _ _ (energy l A w) (energy l A u)); auto; lra.
  - assert (ui : u i = x i) by (unfold u, Rmax; destruct (Rle_dec _ _); tauto).
    assert (wm : w m = x m) by (unfold w, Rmin; destruct (Rle_dec _ _); tauto).
    rewrite ui in Ru. rewrite wm in Rw'. replace (x i - x m) with ((x i - c) + (c - x m)) by ring.
    apply (Both _ _ (energy l A u) (energy l A w)); auto; lra.
  - destruct (Rle_dec (x i) (x m)); [apply Rle_trans with ((c - x m) ^ 2) | apply Rle_trans with ((x i - c) ^ 2)]; nra.
Qed.

(** ** The resistances the checker uses *)

Lemma mean_of_square (a : list nat) (t : nat -> R) : a <> [] -> sum a (fun s => (t s - mean a t)) = 0.
Proof.
  intros N. pose proof (INR_length_pos a N). rewrite sum_minus, sum_const. unfold mean. field. lra.
Qed.

Lemma cauchy_sum (a : list nat) (t : nat -> R) : (sum a t) ^ 2 <= INR (length a) * sum a (fun s => t s ^ 2).
Proof.
  destruct (list_eq_dec Nat.eq_dec a []) as [->|N]; [simpl; lra|]. pose proof (INR_length_pos a N) as P.
  assert (Q : 0 <= sum a (fun s => (t s - mean a t) ^ 2)) by (apply sum_nonneg; intros; apply pow2_ge_0).
  rewrite (sum_ext _ _ (fun s => (t s ^ 2 - 2 * mean a t * t s) + mean a t * mean a t)) in Q by (intros; ring).
  rewrite sum_plus, sum_minus, sum_scal, sum_const in Q. unfold mean in Q.
  apply Rmult_le_compat_l with (r := INR (length a)) in Q; [|lra].
  replace (INR (length a) * (sum a (fun s => t s ^ 2) - 2 * (sum a t / INR (length a)) * sum a t
    + INR (length a) * (sum a t / INR (length a) * (sum a t / INR (length a)))))
    with (INR (length a) * sum a (fun s => t s ^ 2) - (sum a t) ^ 2) in Q by (field; lra). lra.
Qed.

Lemma length_others (a : list nat) (i : nat) : NoDup a -> In i a -> INR (length (others a i)) = INR (length a) - 1.
Proof.
  intros D I. rewrite <- (Rmult_1_r (INR (length (others a i)))), <- (sum_const (others a i) 1).
  rewrite <- (Rmult_1_r (INR (length a))), <- (sum_const a 1), (sum_pick a i) by auto. ring.
Qed.

(** One deviation from the mean against all of them. *)
Lemma deviation (a : list nat) (x : nat -> R) i : NoDup a -> In i a ->
  INR (length a) * (x i - mean a x) ^ 2 <= (INR (length a) - 1) * sum a (fun s => (x s - mean a x) ^ 2).
Proof.
  intros D I. assert (N : a <> []) by (intros ->; destruct I).
  pose proof (mean_of_square a x N) as Z. rewrite (sum_pick a i) in Z by auto.
  pose proof (cauchy_sum (others a i) (fun s => x s - mean a x)) as C.
  rewrite length_others in C by auto. rewrite (sum_pick a i) by auto.
  replace (sum (others a i) (fun s => x s - mean a x)) with (- (x i - mean a x)) in C by lra. lra.
Qed.

Lemma sum_subset (a : list nat) f : NoDup a -> incl a l -> (forall s, 0 <= f s) -> sum a f <= sum l f.
Proof.
  intros D In P.
  assert (X : forall b, NoDup b -> forall c, NoDup c -> incl c b -> sum c f <= sum b f).
  { intros b Db c. revert b Db. induction c as [|s c IH]; intros b Db Dc Ic; [apply sum_nonneg; auto|].
    inversion Dc; subst. simpl. rewrite (sum_pick b s) by (auto; apply Ic; left; auto).
    apply Rplus_le_compat_l. apply IH; auto.
    - unfold others. apply NoDup_filter, Db.
    - intros t T. apply in_others. split; [apply Ic; right; auto | intros ->; tauto]. }
  apply X; auto.
Qed.

Lemma energy_within a w x : NoDup a -> incl a l -> 0 <= w -> (forall s t, In s a -> In t a -> s <> t -> w <= A s t) ->
  / 2 * w * inner a (fun _ _ => 1) (fun s t => (x s - x t) ^ 2) <= energy l A x.
Proof.
  intros D In P Aw. unfold energy. rewrite Rmult_assoc. apply Rmult_le_compat_l; [lra|].
  apply Rle_trans with (inner a A (fun s t => (x s - x t) ^ 2)).
  - unfold inner. rewrite <- sum_scal. apply sum_le. intros s Is. rewrite <- sum_scal. apply sum_le. intros t It.
    destruct (Nat.eq_dec s t) as [->|N]; [replace (x t - x t) with 0 by ring; lra|].
    rewrite Rmult_1_l. apply Rmult_le_compat_r; auto using pow2_ge_0.
  - unfold inner. apply Rle_trans with (sum a (fun s => sum l (fun t => A s t * (x s - x t) ^ 2))).
    + apply sum_le. intros s _. apply sum_subset; auto. intros. apply Rmult_le_pos; auto using pow2_ge_0.
    + apply sum_subset; auto. intros s. apply sum_nonneg. intros. apply Rmult_le_pos; auto using pow2_ge_0.
Qed.

(** Within an orbit a: 2 / (n_a w). *)
Theorem resists_within a w i j : NoDup a -> incl a l -> 0 < w ->
  (forall s t, In s a -> In t a -> s <> t -> w <= A s t) -> In i a -> In j a -> i <> j ->
  resists l A (2 / (INR (length a) * w)) i j.
Proof.
  intros D Inc P Aw I J N. assert (Na : a <> []) by (intros ->; destruct I).
  pose proof (INR_length_pos a Na) as L. split; [left; apply Rdiv_lt_0_compat; [lra | apply Rmult_lt_0_compat; auto]|].
  intros x. pose proof (energy_within a w x D Inc (Rlt_le _ _ P) Aw) as E. set (m := mean a x).
  assert (S : inner a (fun _ _ => 1) (fun s t => (x s - x t) ^ 2) = 2 * INR (length a) * sum a (fun s => (x s - m) ^ 2)).
  { unfold inner. rewrite (sum_ext _ _ (fun s => (INR (length a) * (x s - m) ^ 2 - 2 * (x s - m) * sum a (fun t => x t - m))
      + sum a (fun t => (x t - m) ^ 2))).
    - unfold m. rewrite mean_of_square by auto. rewrite sum_plus, sum_const.
      rewrite (sum_ext _ _ (fun s => INR (length a) * (x s - mean a x) ^ 2)) by (intros; ring).
      rewrite sum_scal. ring.
    - intros s _. rewrite <- sum_const, <- sum_scal, <- sum_minus, <- sum_plus. apply sum_ext. intros; ring. }
  assert (T : (x i - m) ^ 2 + (x j - m) ^ 2 <= sum a (fun s => (x s - m) ^ 2)).
  { rewrite (sum_pick a i) by auto. apply Rplus_le_compat_l.
    apply (sum_term_le (others a i) (fun s => (x s - m) ^ 2)); [intros; apply pow2_ge_0|]. apply in_others; auto. }
  rewrite S in E. apply Rmult_le_reg_l with (INR (length a) * w); [apply Rmult_lt_0_compat; auto|].
  replace (INR (length a) * w * (2 / (INR (length a) * w) * energy l A x)) with (2 * energy l A x) by (field; lra).
  apply Rle_trans with (2 * (/ 2 * w * (2 * INR (length a) * sum a (fun s => (x s - m) ^ 2)))); [|lra].
  replace (2 * (/ 2 * w * (2 * INR (length a) * sum a (fun s => (x s - m) ^ 2))))
    with (INR (length a) * w * (2 * sum a (fun s => (x s - m) ^ 2))) by field.
  apply Rmult_le_compat_l; [left; apply Rmult_lt_0_compat; auto|].
  assert (0 <= ((x i - m) + (x j - m)) ^ 2) by apply pow2_ge_0. nra.
Qed.

(** Two lists without a common sample, all pairs between them of weight w or more. *)
Section Between.
Variables (a b : list nat) (w : R).
Hypothesis a_distinct : NoDup a.
Hypothesis b_distinct : NoDup b.
Hypothesis a_in : incl a l.
Hypothesis b_in : incl b l.
Hypothesis disjoint : forall s, In s a -> In s b -> False.
Hypothesis w_pos : 0 < w.
Hypothesis weights : forall s t, In s a -> In t b -> w <= A s t.

Lemma energy_between x : w * sum a (fun s => sum b (fun t => (x s - x t) ^ 2)) <= energy l A x.
Proof.
  assert (Half : forall c c', NoDup c -> NoDup c' -> incl c l -> incl c' l ->
    (forall s t, In s c -> In t c' -> w <= A s t) ->
    w * sum c (fun s => sum c' (fun t => (x s - x t) ^ 2)) <= sum c (fun s => sum l (fun t => A s t * (x s - x t) ^ 2))).
  { intros c c' Dc Dc' Ic Ic' Wc. rewrite <- sum_scal. apply sum_le. intros s Is. rewrite <- sum_scal.
    apply Rle_trans with (sum c' (fun t => A s t * (x s - x t) ^ 2)).
    - apply sum_le. intros t It. apply Rmult_le_compat_r; auto using pow2_ge_0.
    - apply sum_subset; auto. intros. apply Rmult_le_pos; auto using pow2_ge_0. }
  pose proof (Half a b a_distinct b_distinct a_in b_in weights) as H1.
  assert (H2 : w * sum b (fun s => sum a (fun t => (x s - x t) ^ 2)) <= sum b (fun s => sum l (fun t => A s t * (x s - x t) ^ 2))).
  { apply Half; auto. intros s t S T. rewrite (A_sym s t). auto. }
  replace (sum b (fun s => sum a (fun t => (x s - x t) ^ 2))) with (sum a (fun s => sum b (fun t => (x s - x t) ^ 2))) in H2.
  2:{ rewrite sum_swap. apply sum_ext. intros t _. apply sum_ext. intros; ring. }
  assert (H3 : sum (a ++ b) (fun s => sum l (fun t => A s t * (x s - x t) ^ 2)) <= inner l A (fun s t => (x s - x t) ^ 2)).
  { apply sum_subset.
    - clear - a_distinct b_distinct disjoint. induction a as [|s a' IH]; simpl; auto. inversion a_distinct; subst. constructor.
      + intros X. apply in_app_or in X. destruct X as [X|X]; [tauto | apply (disjoint s); simpl; auto].
      + apply IH; auto. intros t T T'. apply (disjoint t); simpl; auto.
    - intros s X. apply in_app_or in X. destruct X; auto.
    - intros s. apply sum_nonneg. intros. apply Rmult_le_pos; auto using pow2_ge_0. }
  rewrite sum_app in H3. unfold energy. lra.
Qed.

(** Between samples of one orbit through another: 2 / (n_b w). *)
Theorem resists_through i j : b <> [] -> In i a -> In j a -> i <> j -> resists l A (2 / (INR (length b) * w)) i j.
Proof.
  intros Nb I J N. pose proof (INR_length_pos b Nb) as L.
  split; [left; apply Rdiv_lt_0_compat; [lra | apply Rmult_lt_0_compat; auto]|].
  intros x. pose proof (energy_between x) as E.
  assert (S : sum b (fun t => (x i - x t) ^ 2) + sum b (fun t => (x j - x t) ^ 2) <= sum a (fun s => sum b (fun t => (x s - x t) ^ 2))).
  { rewrite (sum_pick a i) by auto. apply Rplus_le_compat_l.
    apply (sum_term_le (others a i) (fun s => sum b (fun t => (x s - x t) ^ 2))); [|apply in_others; auto].
    intros. apply sum_nonneg. intros. apply pow2_ge_0. }
  assert (T : INR (length b) * ((x i - x j) ^ 2 / 2) <= sum b (fun t => (x i - x t) ^ 2) + sum b (fun t => (x j - x t) ^ 2)).
  { rewrite <- sum_const, <- sum_plus. apply sum_le. intros t _.
    assert (0 <= ((x i - x t) + (x j - x t)) ^ 2) by apply pow2_ge_0. nra. }
  apply Rmult_le_reg_l with (INR (length b) * w); [apply Rmult_lt_0_compat; auto|].
  replace (INR (length b) * w * (2 / (INR (length b) * w) * energy l A x)) with (2 * energy l A x) by (field; lra).
  apply Rle_trans with (2 * (w * (INR (length b) * ((x i - x j) ^ 2 / 2)))); [right; field|].
  apply Rmult_le_compat_l; [lra|]. eapply Rle_trans; [|exact E]. apply Rmult_le_compat_l; lra.
Qed.

(** Between samples of the two orbits: (n_a + n_b - 1) / (n_a n_b w). *)
Theorem resists_between i j : In i a -> In j b ->
  resists l A ((INR (length a) + INR (length b) - 1) / (INR (length a) * INR (length b) * w)) i j.
Proof.
  intros I J. assert (Na : a <> []) by (intros E; rewrite E in I; destruct I).
  assert (Nb : b <> []) by (intros E; rewrite E in J; destruct J).
  pose proof (INR_length_pos a Na) as La. pose proof (INR_length_pos b Nb) as Lb.
  assert (La1 : 1 <= INR (length a)) by (apply (le_INR 1); destruct a; [tauto | simpl; lia]).
  assert (Lb1 : 1 <= INR (length b)) by (apply (le_INR 1); destruct b; [tauto | simpl; lia]).
  split; [left; apply Rdiv_lt_0_compat; [lra | repeat apply Rmult_lt_0_compat; auto]|].
  intros x. set (m := INR (length a)) in *. set (n := INR (length b)) in *.
  set (mu := mean a x). set (nu := mean b x).
  set (P := sum a (fun s => (x s - mu) ^ 2)). set (Q := sum b (fun t => (x t - nu) ^ 2)).
  assert (S : sum a (fun s => sum b (fun t => (x s - x t) ^ 2)) = n * P + m * Q + m * n * (mu - nu) ^ 2).
  { transitivity (sum a (fun s => (n * (x s - mu) ^ 2 + 2 * n * (mu - nu) * (x s - mu)) + (n * (mu - nu) ^ 2 + Q))).
    - apply sum_ext. intros s _.
      rewrite (sum_ext b _ (fun t => (x t - nu) ^ 2 - 2 * (x s - nu) * (x t - nu) + (x s - nu) ^ 2)) by (intros; ring).
      rewrite sum_plus, sum_minus, sum_scal, sum_const. unfold nu at 3. rewrite mean_of_square by auto. fold Q n. ring.
    - rewrite !sum_plus, !sum_scal, !sum_const. unfold mu at 3. rewrite mean_of_square by auto. fold P m. ring. }
  pose proof (energy_between x) as E. rewrite S in E.
  pose proof (deviation a x i a_distinct I) as Da. pose proof (deviation b x j b_distinct J) as Db.
  fold m mu P in Da. fold n nu Q in Db.
  assert (P0 : 0 <= P) by (apply sum_nonneg; intros; apply pow2_ge_0).
  assert (Q0 : 0 <= Q) by (apply sum_nonneg; intros; apply pow2_ge_0).
  set (p := x i - mu) in *. set (q := mu - nu) in *. set (r := nu - x j).
  replace (x i - x j) with (p + q + r) by (unfold p, q, r; ring).
  assert (Hp : p ^ 2 <= (m - 1) * (P / m)).
  { apply Rmult_le_reg_l with m; auto. replace (m * ((m - 1) * (P / m))) with ((m - 1) * P) by (field; lra). auto. }
  assert (Hr : r ^ 2 <= (n - 1) * (Q / n)).
  { apply Rmult_le_reg_l with n; auto. replace (n * ((n - 1) * (Q / n))) with ((n - 1) * Q) by (field; lra).
    replace (r ^ 2) with ((x j - nu) ^ 2) by (unfold r; ring). auto. }
  assert (Hq : q ^ 2 <= 1 * q ^ 2) by lra.
  assert (Pm : 0 <= P / m) by (apply Rmult_le_pos; [auto | left; apply Rinv_0_lt_compat; auto]).
  assert (Qn : 0 <= Q / n) by (apply Rmult_le_pos; [auto | left; apply Rinv_0_lt_compat; auto]).
  pose proof (pow2_ge_0 q) as Q2.
  pose proof (cross_term (m - 1) 1 (P / m) (q ^ 2) p q ltac:(lra) ltac:(lra) Pm Q2 Hp Hq) as C1.
  pose proof (cross_term (m - 1) (n - 1) (P / m) (Q / n) p r ltac:(lra) ltac:(lra) Pm Qn Hp Hr) as C2.
  pose proof (cross_term 1 (n - 1) (q ^ 2) (Q / n) q r ltac:(lra) ltac:(lra) Q2 Qn Hq Hr) as C3.
  assert (All : (p + q + r) ^ 2 <= (m + n - 1) * (P / m + q ^ 2 + Q / n)).
  { replace ((p + q + r) ^ 2) with (p ^ 2 + q ^ 2 + r ^ 2 + 2 * p * q + 2 * p * r + 2 * q * r) by ring. nra. }
  eapply Rle_trans; [exact All|].
  replace ((m + n - 1) * (P / m + q ^ 2 + Q / n))
    with ((m + n - 1) / (m * n * w) * (w * (n * P + m * Q + m * n * q ^ 2))) by (field; lra).
  apply Rmult_le_compat_l; auto.
  left. apply Rdiv_lt_0_compat; [lra | repeat apply Rmult_lt_0_compat; auto].
Qed.
End Between.
End Resistance.
