(** One anchor: its positives and negatives are lists, its cosines a function g.
    Everything here holds for any real g unless a hypothesis says otherwise. *)

From Coq Require Import Reals Lra Lia List Bool.
From UFM Require Import Sums.
Import ListNotations.
Open Scope R_scope.

(** Jensen over two lists that share one probability. *)
Lemma jensen_exp2 {A} (l l' : list A) (p p' x x' : A -> R) :
  (forall a, In a l -> 0 <= p a) -> (forall a, In a l' -> 0 <= p' a) ->
  sum l p + sum l' p' = 1 ->
  exp (sum l (fun a => p a * x a) + sum l' (fun a => p' a * x' a))
  <= sum l (fun a => p a * exp (x a)) + sum l' (fun a => p' a * exp (x' a)).
Proof.
  intros P P' One.
  pose (q := fun s : A + A => match s with inl a => p a | inr a => p' a end).
  pose (z := fun s : A + A => match s with inl a => x a | inr a => x' a end).
  pose proof (jensen_exp (map inl l ++ map inr l') q z) as J.
  rewrite !sum_app, !sum_map in J. apply J; auto.
  intros s I. apply in_app_or in I.
  destruct I as [I|I]; apply in_map_iff in I; destruct I as (a & <- & I); simpl; auto.
Qed.

Lemma INR_length_pos {A} (l : list A) : l <> [] -> 0 < INR (length l).
Proof. destruct l; [tauto|]. intros _. apply lt_0_INR. simpl. lia. Qed.

(** ** The log-sum-exp family (chapter 1; the excess is chapter 2) *)

Section LogSumExp.
Variables (alpha : bool) (own tau : R) (margin : nat -> R) (pos neg : list nat).
Hypothesis tau_pos : 0 < tau.
Hypothesis some_pos : pos <> [].
Hypothesis some_term : alpha = true \/ neg <> [].
Implicit Type g : nat -> R.

Definition lse_partition g : R :=
  (if alpha then sum pos (fun j => exp (own + g j / tau)) else 0)
  + sum neg (fun l => exp (margin l + g l / tau)).

Definition lse g : R := ln (lse_partition g) - mean pos (fun j => g j / tau).

Definition lse_Z : R :=
  (if alpha then INR (length pos) * exp own else 0) + sum neg (fun l => exp (margin l - 1 / tau)).

(** Weight of a positive and of a negative in the partition at g, over the whole: the softmax. *)
Definition p_pos g j : R := (if alpha then exp (own + g j / tau) else 0) / lse_partition g.
Definition p_neg g l : R := exp (margin l + g l / tau) / lse_partition g.

Lemma P_pos : 0 < INR (length pos).
Proof. apply INR_length_pos, some_pos. Qed.

Lemma lse_partition_pos g : 0 < lse_partition g.
Proof.
  unfold lse_partition.
  assert (N : 0 <= sum neg (fun l => exp (margin l + g l / tau)))
    by (apply sum_nonneg; intros; left; apply exp_pos).
  destruct alpha.
  - pose proof (sum_pos pos (fun j => exp (own + g j / tau)) some_pos (fun _ _ => exp_pos _)). lra.
  - destruct some_term as [|E]; [discriminate|].
    pose proof (sum_pos neg (fun l => exp (margin l + g l / tau)) E (fun _ _ => exp_pos _)). lra.
Qed.

Lemma lse_Z_pos : 0 < lse_Z.
Proof.
  unfold lse_Z.
  assert (N : 0 <= sum neg (fun l => exp (margin l - 1 / tau)))
    by (apply sum_nonneg; intros; left; apply exp_pos).
  pose proof P_pos. destruct alpha.
  - pose proof (Rmult_lt_0_compat _ _ P_pos (exp_pos own)). lra.
  - destruct some_term as [|E]; [discriminate|].
    pose proof (sum_pos neg (fun l => exp (margin l - 1 / tau)) E (fun _ _ => exp_pos _)). lra.
Qed.

Lemma softmax_total g : sum pos (p_pos g) + sum neg (p_neg g) = 1.
Proof.
  unfold p_pos, p_neg, Rdiv. rewrite !sum_scal_r.
  pose proof (lse_partition_pos g) as H.
  rewrite <- Rmult_plus_distr_r.
  replace (sum pos (fun j => if alpha then exp (own + g j * / tau) else 0))
    with (if alpha then sum pos (fun j => exp (own + g j / tau)) else 0)
    by (destruct alpha; [reflexivity | rewrite sum_zero; auto]).
  apply Rinv_r. change (lse_partition g <> 0). lra.
Qed.

Lemma p_pos_nonneg g j : 0 <= p_pos g j.
Proof.
  unfold p_pos, Rdiv. pose proof (lse_partition_pos g).
  apply Rmult_le_pos; [|left; apply Rinv_0_lt_compat; auto].
  destruct alpha; [left; apply exp_pos | lra].
Qed.

Lemma p_neg_pos g l : 0 < p_neg g l.
Proof.
  unfold p_neg, Rdiv. pose proof (lse_partition_pos g).
  apply Rmult_lt_0_compat; [apply exp_pos | apply Rinv_0_lt_compat; auto].
Qed.

(** Convexity in the cosines: the loss lies above its tangent at any g0 (chapter 4). *)
Lemma lse_tangent g g0 :
  lse g0 + sum neg (fun l => p_neg g0 l / tau * (g l - g0 l))
         + sum pos (fun j => (p_pos g0 j - / INR (length pos)) / tau * (g j - g0 j))
  <= lse g.
Proof.
  pose proof (lse_partition_pos g) as Pg. pose proof (lse_partition_pos g0) as Pg0. pose proof P_pos as PP.
  set (m := sum pos (fun j => p_pos g0 j * ((g j - g0 j) / tau))
            + sum neg (fun l => p_neg g0 l * ((g l - g0 l) / tau))).
  assert (J : m <= ln (lse_partition g) - ln (lse_partition g0)).
  { rewrite <- ln_div, <- (ln_exp m) by auto. apply ln_le; [apply exp_pos|].
    eapply Rle_trans; [apply jensen_exp2|].
    - intros; apply p_pos_nonneg.
    - intros; left; apply p_neg_pos.
    - apply softmax_total.
    - right. unfold p_pos, p_neg.
      rewrite (sum_ext pos _ (fun j => (if alpha then exp (own + g j / tau) else 0) * / lse_partition g0)).
      2:{ intros j _. destruct alpha; [|unfold Rdiv; ring].
          unfold Rdiv at 1. rewrite Rmult_assoc, (Rmult_comm (/ _)), <- Rmult_assoc, <- exp_plus.
          f_equal. f_equal. field. lra. }
      rewrite (sum_ext neg _ (fun l => exp (margin l + g l / tau) * / lse_partition g0)).
      2:{ intros l _. unfold Rdiv at 1. rewrite Rmult_assoc, (Rmult_comm (/ _)), <- Rmult_assoc, <- exp_plus.
          f_equal. f_equal. field. lra. }
      rewrite !sum_scal_r, <- Rmult_plus_distr_r. unfold Rdiv at 3. f_equal.
      unfold lse_partition. f_equal. destruct alpha; [reflexivity | apply sum_zero; auto]. }
  unfold lse, mean.
  replace (sum neg (fun l => p_neg g0 l / tau * (g l - g0 l)))
    with (sum neg (fun l => p_neg g0 l * ((g l - g0 l) / tau))) by (apply sum_ext; intros; field; lra).
  replace (sum pos (fun j => (p_pos g0 j - / INR (length pos)) / tau * (g j - g0 j)))
    with (sum pos (fun j => p_pos g0 j * ((g j - g0 j) / tau))
          - (sum pos (fun j => g j / tau) - sum pos (fun j => g0 j / tau)) / INR (length pos)).
  2:{ rewrite <- sum_minus. unfold Rdiv at 2. rewrite <- sum_scal_r, <- sum_minus.
      apply sum_ext; intros; field; lra. }
  unfold m in J. unfold Rdiv in *. lra.
Qed.

(** The excess without cancellation: phi of the deviations of positives from their mean, and the
    pull of negatives away from 0. *)
Definition lse_above g : R :=
  (if alpha then exp own * sum pos (fun j => phi ((g j - mean pos g) / tau)) else 0)
  + sum neg (fun l => exp (margin l - 1 / tau) * expm1 ((g l + (1 - mean pos g)) / tau)).

Lemma deviations_vanish g : sum pos (fun j => (g j - mean pos g) / tau) = 0.
Proof.
  pose proof P_pos. unfold Rdiv. rewrite sum_scal_r, sum_minus, sum_const. unfold mean. field. lra.
Qed.

Lemma lse_partition_shifted g : lse_partition g = exp (mean pos g / tau) * (lse_Z + lse_above g).
Proof.
  unfold lse_partition, lse_Z, lse_above.
  rewrite (sum_ext neg (fun l => exp (margin l + g l / tau))
    (fun l => exp (mean pos g / tau) *
      (exp (margin l - 1 / tau) + exp (margin l - 1 / tau) * expm1 ((g l + (1 - mean pos g)) / tau)))).
  2:{ intros l _. unfold expm1.
      replace (exp (margin l - 1 / tau) + exp (margin l - 1 / tau) * (exp ((g l + (1 - mean pos g)) / tau) - 1))
        with (exp (margin l - 1 / tau) * exp ((g l + (1 - mean pos g)) / tau)) by ring.
      rewrite <- !exp_plus. f_equal. field. lra. }
  rewrite sum_scal, sum_plus.
  destruct alpha; [|ring].
  rewrite (sum_ext pos (fun j => exp (own + g j / tau))
    (fun j => exp (mean pos g / tau) * (exp own *
      (phi ((g j - mean pos g) / tau) + (1 + (g j - mean pos g) / tau))))).
  2:{ intros j _. unfold phi.
      replace (exp ((g j - mean pos g) / tau) - 1 - (g j - mean pos g) / tau + (1 + (g j - mean pos g) / tau))
        with (exp ((g j - mean pos g) / tau)) by ring.
      rewrite <- !exp_plus. f_equal. field. lra. }
  rewrite !sum_scal, !sum_plus, deviations_vanish, sum_const. ring.
Qed.

Lemma lse_excess g : lse g - ln lse_Z = log1p (lse_above g / lse_Z).
Proof.
  pose proof (lse_partition_pos g) as Pg. pose proof lse_Z_pos as PZ. pose proof (exp_pos (mean pos g / tau)) as E.
  assert (Pa : 0 < lse_Z + lse_above g).
  { rewrite lse_partition_shifted in Pg.
    apply Rmult_lt_reg_l with (exp (mean pos g / tau)); lra. }
  unfold lse. rewrite lse_partition_shifted, ln_mult, ln_exp by auto.
  unfold log1p. replace (1 + lse_above g / lse_Z) with ((lse_Z + lse_above g) / lse_Z) by (field; lra).
  rewrite ln_div by auto.
  replace (mean pos (fun j => g j / tau)) with (mean pos g / tau); [ring|].
  pose proof P_pos. unfold mean, Rdiv. rewrite sum_scal_r. field. lra.
Qed.

(** The geometry of UFM+ enters by these two lines only. *)
Section Feasible.
Variable g : nat -> R.
Hypothesis pos_le : forall j, In j pos -> g j <= 1.
Hypothesis neg_ge : forall l, In l neg -> 0 <= g l.

Lemma mean_le_1 : mean pos g <= 1.
Proof.
  pose proof P_pos. unfold mean. apply Rmult_le_reg_r with (INR (length pos)); auto.
  unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra.
  rewrite Rmult_1_r, Rmult_comm, <- (sum_const pos 1). apply sum_le; auto.
Qed.

Lemma push_nonneg l : In l neg -> 0 <= (g l + (1 - mean pos g)) / tau.
Proof.
  intros I. pose proof mean_le_1. pose proof (neg_ge l I).
  apply Rmult_le_pos; [lra | left; apply Rinv_0_lt_compat; auto].
Qed.

Lemma lse_above_terms :
  0 <= (if alpha then exp own * sum pos (fun j => phi ((g j - mean pos g) / tau)) else 0) /\
  (forall l, In l neg -> 0 <= exp (margin l - 1 / tau) * expm1 ((g l + (1 - mean pos g)) / tau)).
Proof.
  split.
  - destruct alpha; [|lra]. apply Rmult_le_pos; [left; apply exp_pos|].
    apply sum_nonneg; intros; apply phi_nonneg.
  - intros l I. apply Rmult_le_pos; [left; apply exp_pos|]. apply expm1_nonneg, push_nonneg; auto.
Qed.

Lemma lse_above_nonneg : 0 <= lse_above g.
Proof.
  destruct lse_above_terms as [A B]. apply sum_nonneg in B. unfold lse_above. lra.
Qed.

Lemma lse_above_scaled : 0 <= lse_above g / lse_Z.
Proof.
  apply Rmult_le_pos; [apply lse_above_nonneg | left; apply Rinv_0_lt_compat, lse_Z_pos].
Qed.

Lemma lse_bound : ln lse_Z <= lse g.
Proof. pose proof (lse_excess g). pose proof (log1p_nonneg _ lse_above_scaled). lra. Qed.

(** Equality: all positives at their mean (if they stand in the partition); and if there is a
    negative, positives at 1 and negatives at 0. *)
Lemma lse_equality :
  lse g = ln lse_Z ->
  (alpha = true -> forall j, In j pos -> g j = mean pos g) /\
  (neg <> [] -> (forall j, In j pos -> g j = 1) /\ (forall l, In l neg -> g l = 0)).
Proof.
  intros E. assert (Z : lse_above g = 0).
  { pose proof (lse_excess g) as X. rewrite E in X.
    assert (Q : lse_above g / lse_Z = 0) by (apply log1p_zero; [apply lse_above_scaled | lra]).
    apply div_zero in Q; auto using lse_Z_pos. }
  destruct lse_above_terms as [A B]. pose proof (sum_nonneg _ _ B) as B'. unfold lse_above in Z.
  assert (Zn : sum neg (fun l => exp (margin l - 1 / tau) * expm1 ((g l + (1 - mean pos g)) / tau)) = 0) by lra.
  split.
  - intros -> j I. assert (S0 : sum pos (fun j => phi ((g j - mean pos g) / tau)) = 0).
    { pose proof (exp_pos own). apply Rmult_eq_reg_l with (exp own); lra. }
    pose proof (sum_zero_each _ (fun z => phi ((g z - mean pos g) / tau))
      (fun z _ => phi_nonneg _) S0 j I) as X.
    apply (proj1 (phi_zero _)), div_zero in X; auto. lra.
  - intros N. assert (each : forall l, In l neg -> g l = 0 /\ mean pos g = 1).
    { intros l I. pose proof (sum_zero_each _ _ B Zn l I) as X.
      apply Rmult_integral in X. destruct X as [X|X]; [pose proof (exp_pos (margin l - 1 / tau)); lra|].
      apply (proj1 (expm1_zero _)), div_zero in X; auto.
      pose proof (neg_ge l I). pose proof mean_le_1. lra. }
    split; [|intros l I; apply each; auto].
    destruct neg as [|l0 ?]; [tauto|]. destruct (each l0 (or_introl eq_refl)) as [_ M].
    intros j I. assert (D : sum pos (fun j => 1 - g j) = 0).
    { rewrite sum_minus, sum_const. unfold mean in M. pose proof P_pos.
      apply Rmult_eq_compat_r with (r := INR (length pos)) in M.
      unfold Rdiv in M. rewrite Rmult_assoc, Rinv_l in M; lra. }
    apply (sum_zero_each _ (fun j => 1 - g j)) with (x := j) in D; auto; [lra|].
    intros z Iz. specialize (pos_le z Iz). lra.
Qed.
End Feasible.

(** At cosines of 1 and 0, and, without a negative, at any common value of the positives. *)
Lemma lse_attained g :
  (forall j, In j pos -> g j = 1) -> (forall l, In l neg -> g l = 0) -> lse g = ln lse_Z.
Proof.
  intros P N. assert (A : lse_above g = 0).
  { assert (M : mean pos g = 1).
    { unfold mean. rewrite (sum_ext _ _ (fun _ => 1) P), sum_const. pose proof P_pos. field. lra. }
    unfold lse_above. rewrite M, !sum_zero; [destruct alpha; lra| |].
    - intros l I. rewrite (N l I). replace ((0 + (1 - 1)) / tau) with 0 by (field; lra).
      unfold expm1. rewrite exp_0. ring.
    - intros j I. rewrite (P j I). apply phi_zero. field. lra. }
  pose proof (lse_excess g) as X. rewrite A in X. pose proof lse_Z_pos.
  replace (0 / lse_Z) with 0 in X by (field; lra). unfold log1p in X. rewrite Rplus_0_r, ln_1 in X. lra.
Qed.

Lemma lse_attained_alone g :
  neg = [] -> (forall j j', In j pos -> In j' pos -> g j = g j') -> lse g = ln lse_Z.
Proof.
  intros N E. assert (A : lse_above g = 0).
  { assert (M : forall j, In j pos -> g j = mean pos g).
    { intros j I. unfold mean. rewrite (sum_ext _ g (fun _ => g j)), sum_const.
      - pose proof P_pos. field. lra.
      - intros; apply E; auto. }
    unfold lse_above. rewrite N. simpl. rewrite sum_zero; [destruct alpha; lra|].
    intros j I. rewrite (M j I) at 1. apply phi_zero. field. lra. }
  pose proof (lse_excess g) as X. rewrite A in X. pose proof lse_Z_pos.
  replace (0 / lse_Z) with 0 in X by (field; lra). unfold log1p in X. rewrite Rplus_0_r, ln_1 in X. lra.
Qed.

(** The slopes at the frame: a negative pushes with [exp (margin - 1/tau) / Z], and what positives lack
    of their share 1/P pulls. *)
Definition lse_repulsion l : R := exp (margin l - 1 / tau) / lse_Z / tau.
Definition lse_attraction : R := (/ INR (length pos) - (if alpha then exp own else 0) / lse_Z) / tau.

Lemma lse_attraction_alt :
  lse_attraction = sum neg (fun l => exp (margin l - 1 / tau)) / (INR (length pos) * lse_Z * tau).
Proof.
  unfold lse_attraction. pose proof P_pos. pose proof lse_Z_pos.
  replace (sum neg (fun l => exp (margin l - 1 / tau)))
    with (lse_Z - (if alpha then INR (length pos) * exp own else 0)) by (unfold lse_Z; ring).
  destruct alpha; field; lra.
Qed.

Lemma lse_attraction_nonneg : 0 <= lse_attraction.
Proof.
  rewrite lse_attraction_alt. pose proof P_pos. pose proof lse_Z_pos.
  apply Rmult_le_pos; [apply sum_nonneg; intros; left; apply exp_pos|].
  left. apply Rinv_0_lt_compat. repeat apply Rmult_lt_0_compat; auto.
Qed.

Lemma lse_attraction_pos : neg <> [] -> 0 < lse_attraction.
Proof.
  intros N. rewrite lse_attraction_alt. pose proof P_pos. pose proof lse_Z_pos.
  apply Rmult_lt_0_compat; [apply sum_pos; auto; intros; apply exp_pos|].
  apply Rinv_0_lt_compat. repeat apply Rmult_lt_0_compat; auto.
Qed.

Lemma lse_repulsion_pos l : 0 < lse_repulsion l.
Proof.
  pose proof lse_Z_pos. unfold lse_repulsion.
  repeat apply Rdiv_lt_0_compat; auto using exp_pos.
Qed.

(** Stability: the excess is at least linear in what is amiss. No hypothesis on g. *)
Lemma lse_stability g :
  sum neg (fun l => lse_repulsion l * g l) + sum pos (fun j => lse_attraction * (1 - g j)) <= lse g - ln lse_Z.
Proof.
  pose proof P_pos as PP. pose proof lse_Z_pos as PZ.
  set (m := sum pos (fun j => ((if alpha then exp own else 0) / lse_Z) * ((g j - mean pos g) / tau))
            + sum neg (fun l => (exp (margin l - 1 / tau) / lse_Z) * ((g l + (1 - mean pos g)) / tau))).
  replace (sum neg (fun l => lse_repulsion l * g l) + sum pos (fun j => lse_attraction * (1 - g j))) with m.
  2:{ unfold m. rewrite (sum_scal pos), deviations_vanish.
      rewrite (sum_ext neg (fun l => exp (margin l - 1 / tau) / lse_Z * _)
        (fun l => lse_repulsion l * g l + exp (margin l - 1 / tau) * ((1 - mean pos g) / (lse_Z * tau))))
        by (intros; unfold lse_repulsion; field; lra).
      rewrite sum_plus, sum_scal_r, (sum_scal pos), sum_minus, sum_const, lse_attraction_alt.
      replace (sum pos g) with (mean pos g * INR (length pos)) by (unfold mean; field; lra).
      field. lra. }
  rewrite lse_excess. unfold log1p. rewrite <- (ln_exp m). apply ln_le; [apply exp_pos|].
  replace (1 + lse_above g / lse_Z) with
    (sum pos (fun j => ((if alpha then exp own else 0) / lse_Z) * exp ((g j - mean pos g) / tau))
     + sum neg (fun l => (exp (margin l - 1 / tau) / lse_Z) * exp ((g l + (1 - mean pos g)) / tau))).
  - apply jensen_exp2.
    + intros. destruct alpha; [|unfold Rdiv; lra].
      apply Rmult_le_pos; left; [apply exp_pos | apply Rinv_0_lt_compat; auto].
    + intros. left. apply Rdiv_lt_0_compat; auto using exp_pos.
    + rewrite sum_const. unfold Rdiv at 2. rewrite sum_scal_r.
      replace (sum neg (fun l => exp (margin l - 1 / tau)))
        with (lse_Z - (if alpha then INR (length pos) * exp own else 0)) by (unfold lse_Z; ring).
      destruct alpha; field; lra.
  - rewrite (sum_scal pos).
    rewrite (sum_ext neg _ (fun l => / lse_Z * (exp (margin l - 1 / tau)
        + exp (margin l - 1 / tau) * expm1 ((g l + (1 - mean pos g)) / tau))))
      by (intros; unfold expm1, Rdiv; ring).
    rewrite (sum_scal neg), sum_plus.
    rewrite (sum_ext pos _ (fun j => phi ((g j - mean pos g) / tau) + (1 + (g j - mean pos g) / tau)))
      by (intros; unfold phi; ring).
    rewrite !sum_plus, deviations_vanish, sum_const.
    replace (sum neg (fun l => exp (margin l - 1 / tau)))
      with (lse_Z - (if alpha then INR (length pos) * exp own else 0)) by (unfold lse_Z; ring).
    unfold lse_above. destruct alpha; field; lra.
Qed.
End LogSumExp.
