(** One anchor of the two losses that are no log-sum-exp: the sigmoid loss and SupCon-in. *)

From Coq Require Import Reals Lra Lia List Bool.
From UFM Require Import Sums Anchor.
Import ListNotations.
Open Scope R_scope.

Definition softplus (u : R) : R := ln (1 + exp u).
Definition logistic (u : R) : R := exp u / (1 + exp u).

Lemma logistic_pos u : 0 < logistic u.
Proof. unfold logistic. pose proof (exp_pos u). apply Rdiv_lt_0_compat; lra. Qed.

Lemma logistic_le_1 u : logistic u <= 1.
Proof.
  unfold logistic. pose proof (exp_pos u).
  apply Rmult_le_reg_r with (1 + exp u); [lra|]. field_simplify; lra.
Qed.

(** A convex function above its tangent. *)
Lemma softplus_tangent u v : softplus v + logistic v * (u - v) <= softplus u.
Proof.
  pose proof (exp_pos u) as Pu. pose proof (exp_pos v) as Pv.
  assert (J : exp (logistic v * (u - v)) <= (1 + exp u) / (1 + exp v)).
  { pose proof (jensen_exp2 [tt] [tt] (fun _ => 1 - logistic v) (fun _ => logistic v)
                  (fun _ => 0) (fun _ => u - v)) as J. simpl in J.
    replace ((1 - logistic v) * 0 + 0 + (logistic v * (u - v) + 0)) with (logistic v * (u - v)) in J by ring.
    eapply Rle_trans; [apply J|].
    - intros. pose proof (logistic_le_1 v). lra.
    - intros. pose proof (logistic_pos v). lra.
    - ring.
    - right. rewrite exp_0. unfold Rminus. rewrite exp_plus, exp_Ropp. unfold logistic. field. lra. }
  apply ln_le in J; [|apply exp_pos]. rewrite ln_exp, ln_div in J by lra. unfold softplus. lra.
Qed.

(** ** Sigmoid: a pairwise logistic loss *)

Section Sigmoid.
Variables (scale bias : R) (pos neg : list nat).
Hypothesis scale_pos : 0 < scale.
Implicit Type g : nat -> R.

Definition sigmoid g : R :=
  sum pos (fun j => softplus (- (scale * g j + bias))) + sum neg (fun l => softplus (scale * g l + bias)).

Definition sigmoid_floor : R :=
  INR (length pos) * softplus (- (scale + bias)) + INR (length neg) * softplus bias.

Definition sigmoid_repulsion : R := scale * logistic bias.
Definition sigmoid_attraction : R := scale * logistic (- (scale + bias)).

Lemma sigmoid_repulsion_pos : 0 < sigmoid_repulsion.
Proof. apply Rmult_lt_0_compat; auto using logistic_pos. Qed.

Lemma sigmoid_attraction_pos : 0 < sigmoid_attraction.
Proof. apply Rmult_lt_0_compat; auto using logistic_pos. Qed.

Lemma sigmoid_tangent g g0 :
  sigmoid g0 + sum neg (fun l => scale * logistic (scale * g0 l + bias) * (g l - g0 l))
             + sum pos (fun j => - (scale * logistic (- (scale * g0 j + bias))) * (g j - g0 j))
  <= sigmoid g.
Proof.
  unfold sigmoid.
  assert (N : sum neg (fun l => softplus (scale * g0 l + bias)
                + scale * logistic (scale * g0 l + bias) * (g l - g0 l))
              <= sum neg (fun l => softplus (scale * g l + bias))).
  { apply sum_le. intros l _. pose proof (softplus_tangent (scale * g l + bias) (scale * g0 l + bias)).
    replace (scale * logistic (scale * g0 l + bias) * (g l - g0 l))
      with (logistic (scale * g0 l + bias) * (scale * g l + bias - (scale * g0 l + bias))) by ring. auto. }
  assert (P : sum pos (fun j => softplus (- (scale * g0 j + bias))
                + - (scale * logistic (- (scale * g0 j + bias))) * (g j - g0 j))
              <= sum pos (fun j => softplus (- (scale * g j + bias)))).
  { apply sum_le. intros j _. pose proof (softplus_tangent (- (scale * g j + bias)) (- (scale * g0 j + bias))).
    replace (- (scale * logistic (- (scale * g0 j + bias))) * (g j - g0 j))
      with (logistic (- (scale * g0 j + bias)) * (- (scale * g j + bias) - - (scale * g0 j + bias))) by ring. auto. }
  rewrite sum_plus in N, P. lra.
Qed.

Lemma sigmoid_attained g :
  (forall j, In j pos -> g j = 1) -> (forall l, In l neg -> g l = 0) -> sigmoid g = sigmoid_floor.
Proof.
  intros P N. unfold sigmoid, sigmoid_floor. rewrite <- !sum_const.
  f_equal; apply sum_ext; intros x I; [rewrite (P x I) | rewrite (N x I)]; f_equal; ring.
Qed.

Lemma sigmoid_stability g :
  sum neg (fun l => sigmoid_repulsion * g l) + sum pos (fun j => sigmoid_attraction * (1 - g j))
  <= sigmoid g - sigmoid_floor.
Proof.
  assert (N : sum neg (fun l => softplus bias + sigmoid_repulsion * g l)
              <= sum neg (fun l => softplus (scale * g l + bias))).
  { apply sum_le. intros l _. pose proof (softplus_tangent (scale * g l + bias) bias) as T.
    replace (scale * g l + bias - bias) with (scale * g l) in T by ring.
    unfold sigmoid_repulsion. lra. }
  assert (P : sum pos (fun j => softplus (- (scale + bias)) + sigmoid_attraction * (1 - g j))
              <= sum pos (fun j => softplus (- (scale * g j + bias)))).
  { apply sum_le. intros j _. pose proof (softplus_tangent (- (scale * g j + bias)) (- (scale + bias))) as T.
    replace (- (scale * g j + bias) - - (scale + bias)) with (scale * (1 - g j)) in T by ring.
    unfold sigmoid_attraction. lra. }
  rewrite sum_plus, sum_const in N, P. unfold sigmoid, sigmoid_floor. lra.
Qed.
End Sigmoid.

(** ** SupCon-in: the mean over positives inside the logarithm; not convex, yet monotone *)

Section SupConIn.
Variables (tau : R) (pos neg : list nat).
Hypothesis tau_pos : 0 < tau.
Hypothesis some_pos : pos <> [].
Implicit Type g : nat -> R.

Definition supcon_in g : R :=
  ln (sum pos (fun j => exp (g j / tau)) + sum neg (fun l => exp (g l / tau)))
  - ln (sum pos (fun j => exp (g j / tau)) / INR (length pos)).

Definition supcon_in_Z : R := INR (length pos) + INR (length neg) * exp (- (1 / tau)).

Definition supcon_in_repulsion : R := exp (- (1 / tau)) / supcon_in_Z / tau.
Definition supcon_in_attraction : R :=
  INR (length neg) * exp (- (1 / tau)) * (1 - exp (- (1 / tau))) / (INR (length pos) * supcon_in_Z).

Let P_pos : 0 < INR (length pos) := INR_length_pos pos some_pos.

Lemma decay_lt_1 : exp (- (1 / tau)) < 1.
Proof.
  rewrite <- exp_0 at 2. apply exp_increasing.
  assert (0 < 1 / tau) by (apply Rdiv_lt_0_compat; lra). lra.
Qed.

Lemma supcon_in_Z_pos : 0 < supcon_in_Z.
Proof.
  unfold supcon_in_Z. pose proof (pos_INR (length neg)). pose proof (exp_pos (- (1 / tau))).
  pose proof (Rmult_le_pos _ _ H (Rlt_le _ _ H0)). lra.
Qed.

Lemma supcon_in_repulsion_pos : 0 < supcon_in_repulsion.
Proof.
  pose proof supcon_in_Z_pos. unfold supcon_in_repulsion. repeat apply Rdiv_lt_0_compat; auto using exp_pos.
Qed.

Lemma supcon_in_attraction_nonneg : 0 <= supcon_in_attraction.
Proof.
  pose proof supcon_in_Z_pos. pose proof decay_lt_1. unfold supcon_in_attraction.
  apply Rmult_le_pos; [|left; apply Rinv_0_lt_compat, Rmult_lt_0_compat; auto].
  repeat apply Rmult_le_pos; try lra; auto using pos_INR. left; apply exp_pos.
Qed.

Lemma supcon_in_attraction_pos : neg <> [] -> 0 < supcon_in_attraction.
Proof.
  intros N. pose proof supcon_in_Z_pos. pose proof decay_lt_1. unfold supcon_in_attraction.
  apply Rdiv_lt_0_compat; [|apply Rmult_lt_0_compat; auto].
  repeat apply Rmult_lt_0_compat; try lra; auto using INR_length_pos, exp_pos.
Qed.

Lemma exps_pos l g : l <> [] -> 0 < sum l (fun j => exp (g j / tau)).
Proof. intros. apply sum_pos; auto using exp_pos. Qed.

(** Without negatives it is a constant. *)
Lemma supcon_in_alone g : neg = [] -> supcon_in g = ln supcon_in_Z.
Proof.
  intros E. unfold supcon_in, supcon_in_Z. rewrite E. simpl sum. simpl length. pose proof (exps_pos pos g some_pos).
  rewrite ln_div by auto. replace (INR 0) with 0 by reflexivity. rewrite Rmult_0_l, !Rplus_0_r. ring.
Qed.

Lemma supcon_in_attained g :
  (forall j, In j pos -> g j = 1) -> (forall l, In l neg -> g l = 0) -> supcon_in g = ln supcon_in_Z.
Proof.
  intros P N. unfold supcon_in.
  rewrite (sum_ext pos _ (fun _ => exp (1 / tau))) by (intros j I; rewrite (P j I); auto).
  rewrite (sum_ext neg _ (fun _ => 1)) by (intros l I; rewrite (N l I); unfold Rdiv; rewrite Rmult_0_l; apply exp_0).
  rewrite !sum_const. pose proof (exp_pos (1 / tau)). pose proof supcon_in_Z_pos.
  replace (INR (length pos) * exp (1 / tau) + INR (length neg) * 1) with (exp (1 / tau) * supcon_in_Z).
  2:{ unfold supcon_in_Z. rewrite exp_Ropp. field. lra. }
  replace (INR (length pos) * exp (1 / tau) / INR (length pos)) with (exp (1 / tau)) by (field; lra).
  rewrite ln_mult by auto. ring.
Qed.

(** The exponential of a cosine in [0, 1] lies under its chord. *)
Lemma chord x : 0 <= x <= 1 -> exp (x / tau) <= exp (1 / tau) * (1 - (1 - exp (- (1 / tau))) * (1 - x)).
Proof.
  intros [A B].
  pose proof (jensen_exp2 [tt] [tt] (fun _ => x) (fun _ => 1 - x) (fun _ => 1 / tau) (fun _ => 0)) as J.
  simpl in J. eapply Rle_trans; [|eapply Rle_trans; [apply J|]].
  - right. f_equal. field. lra.
  - intros; lra.
  - intros; lra.
  - ring.
  - right. rewrite exp_0, exp_Ropp. pose proof (exp_pos (1 / tau)). field. lra.
Qed.

Section Feasible.
Variable g : nat -> R.
Hypothesis pos_in : forall j, In j pos -> 0 <= g j <= 1.

Lemma supcon_in_stability :
  sum neg (fun l => supcon_in_repulsion * g l) + sum pos (fun j => supcon_in_attraction * (1 - g j))
  <= supcon_in g - ln supcon_in_Z.
Proof.
  destruct (list_eq_dec Nat.eq_dec neg []) as [E|N].
  { rewrite supcon_in_alone by auto. unfold supcon_in_attraction. rewrite E. simpl.
    rewrite sum_zero; [lra|]. intros. unfold Rdiv. ring. }
  pose proof (INR_length_pos neg N) as Q. pose proof (exps_pos pos g some_pos) as EP.
  pose proof (exps_pos neg g N) as EN. pose proof (exp_pos (1 / tau)) as E1.
  pose proof (exp_pos (- (1 / tau))) as E2. pose proof supcon_in_Z_pos as PZ. pose proof decay_lt_1 as D.
  set (q := INR (length neg)) in *. set (P := INR (length pos)) in *.
  set (Spos := sum pos (fun j => exp (g j / tau))) in *. set (Sneg := sum neg (fun l => exp (g l / tau))) in *.
  set (short := sum pos (fun j => 1 - g j) / P). set (up := sum neg g / q / tau).
  (* negatives by Jensen *)
  assert (A : ln q + up <= ln Sneg).
  { rewrite <- (ln_exp up), <- ln_mult by auto using exp_pos. apply ln_le.
    - apply Rmult_lt_0_compat; auto using exp_pos.
    - pose proof (jensen_exp neg (fun _ => / q) (fun l => g l / tau)) as J.
      cbv beta in J. rewrite !sum_scal in J. replace up with (/ q * sum neg (fun l => g l / tau)).
      2:{ unfold up, Rdiv. rewrite (sum_scal_r neg). field. lra. }
      assert (J' : exp (/ q * sum neg (fun l => g l / tau)) <= / q * Sneg).
      { apply J.
        - intros. left. apply Rinv_0_lt_compat; auto.
        - rewrite sum_const. fold q. field. lra. }
      apply Rmult_le_compat_l with (r := q) in J'; [|lra].
      replace (q * (/ q * Sneg)) with Sneg in J' by (field; lra). auto. }
  (* positives under the chord *)
  assert (B : ln Spos <= ln P + 1 / tau - (1 - exp (- (1 / tau))) * short).
  { assert (C : Spos <= P * exp (1 / tau) * exp (- ((1 - exp (- (1 / tau))) * short))).
    { apply Rle_trans with (P * exp (1 / tau) * (1 - (1 - exp (- (1 / tau))) * short)).
      - unfold Spos. eapply Rle_trans; [apply sum_le; intros j I; apply (chord (g j) (pos_in j I))|].
        rewrite sum_scal, sum_minus, sum_const, sum_scal. fold P. unfold short. right. field. lra.
      - apply Rmult_le_compat_l; [apply Rmult_le_pos; lra|].
        pose proof (exp_ge (- ((1 - exp (- (1 / tau))) * short))). lra. }
    apply ln_le in C; auto.
    rewrite !ln_mult, !ln_exp in C; auto using exp_pos; try lra.
    apply Rmult_lt_0_compat; auto. }
  (* softplus of the difference *)
  set (v := ln q - ln P - 1 / tau).
  assert (S : supcon_in g = ln P + softplus (ln Sneg - ln Spos)).
  { unfold supcon_in, softplus. fold Sneg Spos P. unfold Rminus at 2. rewrite exp_plus, exp_Ropp, !exp_ln by auto.
    rewrite ln_div by auto.
    replace (1 + Sneg * / Spos) with ((Spos + Sneg) / Spos) by (field; lra). rewrite ln_div by lra. ring. }
  assert (V : exp v = q / P * exp (- (1 / tau))).
  { unfold v, Rminus. rewrite !exp_plus, exp_Ropp, !exp_ln by auto. reflexivity. }
  assert (F : ln supcon_in_Z = ln P + softplus v).
  { unfold softplus. rewrite V, <- ln_mult; auto.
    - f_equal. unfold supcon_in_Z. fold P q. field. lra.
    - assert (0 < q / P * exp (- (1 / tau))) by (apply Rmult_lt_0_compat; auto; apply Rdiv_lt_0_compat; auto). lra. }
  assert (L : logistic v = q * exp (- (1 / tau)) / supcon_in_Z).
  { unfold logistic. rewrite V. unfold supcon_in_Z in *. fold P q in PZ |- *. field. lra. }
  pose proof (softplus_tangent (ln Sneg - ln Spos) v) as T. pose proof (logistic_pos v) as LP.
  assert (G : logistic v * (up + (1 - exp (- (1 / tau))) * short) <= logistic v * (ln Sneg - ln Spos - v)).
  { apply Rmult_le_compat_l; [lra|]. unfold v. lra. }
  rewrite S, F. rewrite !sum_scal.
  replace (supcon_in_repulsion * sum neg g + supcon_in_attraction * sum pos (fun j => 1 - g j))
    with (logistic v * (up + (1 - exp (- (1 / tau))) * short)); [lra|].
  rewrite L. unfold up, short, supcon_in_repulsion, supcon_in_attraction. fold P q. field. lra.
Qed.
End Feasible.
End SupConIn.
