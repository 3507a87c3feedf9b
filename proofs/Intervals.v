(** Interval arithmetic in fixed point, enough to evaluate the formal losses at rational embeddings.

    An interval is a pair of integers over 2^112, or nothing known. Exponentials are bounded below by
    (1 + x/2^44)^(2^44), logarithms above by 2^44 (x^(1/2^44) - 1): both are e^t >= 1 + t. *)

From Coq Require Import Reals Lra Lia List Arith ZArith QArith Qreals Bool.
From UFM Require Import Sums.
Import ListNotations.
Open Scope R_scope.

Definition halvings : nat := 44.
Definition one : Z := (2 ^ 112)%Z.

Lemma one_pos : (0 < one)%Z.
Proof. reflexivity. Qed.

Lemma one_R : 0 < IZR one.
Proof. apply (IZR_lt 0), one_pos. Qed.

Global Opaque one halvings.

Definition interval : Type := option (Z * Z).

Definition contains (I : interval) (x : R) : Prop :=
  match I with Some (lo, hi) => IZR lo <= x * IZR one <= IZR hi | None => True end.

Definition ceil_div (a b : Z) : Z := (- ((- a) / b))%Z.

Lemma floor_le a b : (0 < b)%Z -> IZR (a / b) <= IZR a / IZR b.
Proof.
  intros P. pose proof (Z.mul_div_le a b P) as X. apply IZR_le in X. rewrite mult_IZR in X.
  apply (IZR_lt 0) in P. apply Rmult_le_reg_l with (IZR b); auto.
  replace (IZR b * (IZR a / IZR b)) with (IZR a) by (field; lra). auto.
Qed.

Lemma ceil_ge a b : (0 < b)%Z -> IZR a / IZR b <= IZR (ceil_div a b).
Proof.
  intros P. unfold ceil_div. rewrite opp_IZR. pose proof (floor_le (- a) b P) as X. rewrite opp_IZR in X.
  unfold Rdiv in *. lra.
Qed.

(** ** Rational numbers *)

Lemma den_pos q : (0 < Zpos (Qden q))%Z.
Proof. reflexivity. Qed.

Lemma Q2R_div_den q : Q2R q = IZR (Qnum q) / IZR (Zpos (Qden q)).
Proof. reflexivity. Qed.

Definition of_Q (q : Q) : interval :=
  Some (Qnum q * one / Zpos (Qden q), ceil_div (Qnum q * one) (Zpos (Qden q)))%Z.

Lemma of_Q_contains q : contains (of_Q q) (Q2R q).
Proof.
  simpl. rewrite Q2R_div_den.
  replace (IZR (Qnum q) / IZR (Zpos (Qden q)) * IZR one) with (IZR (Qnum q * one) / IZR (Zpos (Qden q)))
    by (rewrite mult_IZR; unfold Rdiv; ring).
  split; [apply floor_le | apply ceil_ge]; apply den_pos.
Qed.

(** ** Sums and positive multiples *)

Definition add (I J : interval) : interval :=
  match I, J with Some (a, b), Some (c, d) => Some (a + c, b + d)%Z | _, _ => None end.

Lemma add_contains I J x z : contains I x -> contains J z -> contains (add I J) (x + z).
Proof. destruct I as [[a b]|], J as [[c d]|]; simpl; auto. rewrite !plus_IZR. lra. Qed.

Definition opp (I : interval) : interval := match I with Some (a, b) => Some (- b, - a)%Z | None => None end.

Lemma opp_contains I x : contains I x -> contains (opp I) (- x).
Proof. destruct I as [[a b]|]; simpl; auto. rewrite !opp_IZR. lra. Qed.

Definition sub (I J : interval) : interval := add I (opp J).

Lemma sub_contains I J x z : contains I x -> contains J z -> contains (sub I J) (x - z).
Proof. intros A B. apply add_contains; auto. apply opp_contains, B. Qed.

Definition scale (q : Q) (I : interval) : interval :=
  match I with
  | Some (a, b) =>
      if (0 <=? Qnum q)%Z then Some (Qnum q * a / Zpos (Qden q), ceil_div (Qnum q * b) (Zpos (Qden q)))%Z else None
  | None => None
  end.

Lemma scale_contains q I x : contains I x -> contains (scale q I) (Q2R q * x).
Proof.
  destruct I as [[a b]|]; simpl; auto. intros [A B]. destruct (Z.leb_spec 0 (Qnum q)) as [P|]; simpl; auto.
  apply IZR_le in P. rewrite Q2R_div_den.
  assert (Dn : 0 < / IZR (Zpos (Qden q))) by (apply Rinv_0_lt_compat, (IZR_lt 0), den_pos).
  replace (IZR (Qnum q) / IZR (Zpos (Qden q)) * x * IZR one)
    with (IZR (Qnum q) * (x * IZR one) * / IZR (Zpos (Qden q))) by (unfold Rdiv; ring).
  split.
  - eapply Rle_trans; [apply floor_le, den_pos|]. rewrite mult_IZR. unfold Rdiv.
    apply Rmult_le_compat_r; [lra|]. apply Rmult_le_compat_l; auto.
  - eapply Rle_trans; [|apply ceil_ge, den_pos]. rewrite mult_IZR. unfold Rdiv.
    apply Rmult_le_compat_r; [lra|]. apply Rmult_le_compat_l; auto.
Qed.

Fixpoint isum {A} (l : list A) (f : A -> interval) : interval :=
  match l with [] => Some (0, 0)%Z | a :: l' => add (f a) (isum l' f) end.

Lemma isum_contains {A} (l : list A) f g :
  (forall a, In a l -> contains (f a) (g a)) -> contains (isum l f) (sum l g).
Proof.
  induction l as [|a l IH]; intros C; [simpl; lra|].
  simpl isum. simpl sum. apply add_contains; [apply C; left; auto | apply IH; intros; apply C; right; auto].
Qed.

(** ** The exponential *)

Fixpoint squared (k : nat) (z : Z) : Z := match k with O => z | S k' => squared k' (z * z / one) end.

Lemma squared_le k z u :
  (0 <= z)%Z -> IZR z <= exp u * IZR one ->
  (0 <= squared k z)%Z /\ IZR (squared k z) <= exp (2 ^ k * u) * IZR one.
Proof.
  revert z u. induction k as [|k IH]; intros z u P B; simpl.
  - rewrite Rmult_1_l. auto.
  - replace (2 * 2 ^ k * u) with (2 ^ k * (2 * u)) by ring. apply IH.
    + apply Z.div_pos; [nia | apply one_pos].
    + pose proof one_R. eapply Rle_trans; [apply floor_le, one_pos|].
      apply Rmult_le_reg_r with (IZR one); auto. unfold Rdiv. rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra.
      rewrite mult_IZR. replace (2 * u) with (u + u) by ring. rewrite exp_plus.
      replace (exp u * exp u * IZR one * IZR one) with (exp u * IZR one * (exp u * IZR one)) by ring.
      apply (IZR_le 0) in P. apply Rmult_le_compat; auto.
Qed.

(** A lower bound of e^(m / one), over one. *)
Definition exp_lower (m : Z) : Z := squared halvings (Z.max 0 (one + m / 2 ^ Z.of_nat halvings)).

Lemma pow2_IZR k : IZR (2 ^ Z.of_nat k) = 2 ^ k.
Proof. rewrite <- pow_IZR. reflexivity. Qed.

Lemma exp_lower_le m : (0 <= exp_lower m)%Z /\ IZR (exp_lower m) <= exp (IZR m / IZR one) * IZR one.
Proof.
  pose proof one_R as O. set (K := 2 ^ halvings).
  assert (KP : 0 < K) by (apply pow_lt; lra).
  replace (IZR m / IZR one) with (K * (IZR m / IZR one / K)) by (field; lra).
  unfold exp_lower. apply (squared_le halvings); [apply Z.le_max_l|].
  assert (B : IZR (one + m / 2 ^ Z.of_nat halvings) <= exp (IZR m / IZR one / K) * IZR one).
  { apply Rle_trans with ((1 + IZR m / IZR one / K) * IZR one); [|apply Rmult_le_compat_r; [lra | apply exp_ge]].
    rewrite plus_IZR. replace ((1 + IZR m / IZR one / K) * IZR one) with (IZR one + IZR m / K) by (field; lra).
    apply Rplus_le_compat_l. unfold K. rewrite <- pow2_IZR. apply floor_le. apply Z.pow_pos_nonneg; lia. }
  destruct (Z.max_spec 0 (one + m / 2 ^ Z.of_nat halvings)) as [[_ ->]|[_ ->]]; auto.
  apply Rmult_le_pos; [left; apply exp_pos | lra].
Qed.

Definition iexp (I : interval) : interval :=
  match I with
  | Some (a, b) =>
      let below := exp_lower (- b) in
      if (0 <? below)%Z then Some (exp_lower a, ceil_div (one * one) below) else None
  | None => None
  end.

Lemma iexp_contains I x : contains I x -> contains (iexp I) (exp x).
Proof.
  destruct I as [[a b]|]; simpl; auto. intros [A B]. pose proof one_R as O.
  destruct (Z.ltb_spec 0 (exp_lower (- b))) as [P|]; simpl; auto. split.
  - destruct (exp_lower_le a) as [_ E]. eapply Rle_trans; [apply E|]. apply Rmult_le_compat_r; [lra|].
    assert (X : IZR a / IZR one <= x).
    { apply Rmult_le_reg_r with (IZR one); auto. unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. lra. }
    destruct X as [X|X]; [left; apply exp_increasing; auto | rewrite X; lra].
  - eapply Rle_trans; [|apply ceil_ge; auto]. destruct (exp_lower_le (- b)) as [_ E].
    apply (IZR_lt 0) in P. rewrite mult_IZR.
    assert (X : - x * IZR one >= IZR (- b)) by (rewrite opp_IZR; lra).
    assert (Y : exp (IZR (- b) / IZR one) <= exp (- x)).
    { assert (Q : IZR (- b) / IZR one <= - x).
      { apply Rmult_le_reg_r with (IZR one); auto. unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. lra. }
      destruct Q as [Q|Q]; [left; apply exp_increasing; auto | rewrite Q; lra]. }
    assert (V : IZR (exp_lower (- b)) <= / exp x * IZR one).
    { rewrite <- exp_Ropp. eapply Rle_trans; [apply E|]. apply Rmult_le_compat_r; lra. }
    pose proof (exp_pos x) as Px.
    apply Rmult_le_reg_r with (IZR (exp_lower (- b))); auto.
    replace (IZR one * IZR one / IZR (exp_lower (- b)) * IZR (exp_lower (- b))) with (IZR one * IZR one) by (field; lra).
    replace (IZR one * IZR one) with (exp x * IZR one * (/ exp x * IZR one)) by (field; lra).
    apply Rmult_le_compat_l; auto. apply Rmult_le_pos; lra.
Qed.

(** ** The logarithm *)

Definition root (z : Z) : Z := (Z.sqrt (z * one) + 1)%Z.

Fixpoint rooted (k : nat) (z : Z) : Z := match k with O => z | S k' => rooted k' (root z) end.

(** An upper bound of log (m / one), over one. *)
Definition ln_upper (m : Z) : Z := (2 ^ Z.of_nat halvings * (rooted halvings m - one))%Z.

Lemma root_ge z x : 0 < x -> x * IZR one <= IZR z ->
  ln x <= 2 * ln (IZR (root z) / IZR one) /\ 0 < IZR (root z) / IZR one.
Proof.
  intros P B. pose proof one_R as O. pose proof (Rmult_lt_0_compat _ _ P O) as PO.
  assert (Pz : (0 < z)%Z) by (apply lt_IZR; lra).
  assert (Sq : (z * one < root z * root z)%Z).
  { unfold root. pose proof one_pos. destruct (Z.sqrt_spec (z * one)) as [_ S]; [nia|].
    rewrite <- Z.add_1_r in S. exact S. }
  apply IZR_lt in Sq. rewrite !mult_IZR in Sq.
  assert (Pr : 0 < IZR (root z)).
  { apply (IZR_lt 0). unfold root. pose proof (Z.sqrt_nonneg (z * one)). lia. }
  set (r := IZR (root z) / IZR one). assert (Rp : 0 < r) by (apply Rdiv_lt_0_compat; auto).
  split; auto. replace (2 * ln r) with (ln (r * r)) by (rewrite ln_mult by auto; ring).
  apply ln_le; auto. apply Rmult_le_reg_r with (IZR one * IZR one); [apply Rmult_lt_0_compat; auto|].
  replace (r * r * (IZR one * IZR one)) with (IZR (root z) * IZR (root z)) by (unfold r; field; lra).
  apply Rle_trans with (IZR z * IZR one); [|lra]. rewrite <- Rmult_assoc. apply Rmult_le_compat_r; lra.
Qed.

Lemma rooted_ge k z x : 0 < x -> x * IZR one <= IZR z -> ln x <= 2 ^ k * (IZR (rooted k z) / IZR one - 1).
Proof.
  revert z x. induction k as [|k IH]; intros z x P B; pose proof one_R as O.
  - simpl. rewrite Rmult_1_l. pose proof (exp_ge (ln x)) as E. rewrite exp_ln in E by auto.
    assert (x <= IZR z / IZR one); [|lra].
    apply Rmult_le_reg_r with (IZR one); auto. unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. lra.
  - destruct (root_ge z x P B) as [A Pr]. simpl rooted. simpl pow.
    assert (C : IZR (root z) / IZR one * IZR one <= IZR (root z)) by (right; field; lra).
    pose proof (IH (root z) _ Pr C). lra.
Qed.

Lemma ln_upper_ge m x : 0 < x -> x * IZR one <= IZR m -> ln x * IZR one <= IZR (ln_upper m).
Proof.
  intros P B. pose proof one_R as O. unfold ln_upper. rewrite mult_IZR, minus_IZR, pow2_IZR.
  pose proof (rooted_ge halvings m x P B) as X. apply Rmult_le_compat_r with (r := IZR one) in X; [|lra].
  replace (2 ^ halvings * (IZR (rooted halvings m) / IZR one - 1) * IZR one)
    with (2 ^ halvings * (IZR (rooted halvings m) - IZR one)) in X; [auto|].
  field. lra.
Qed.

Definition iln (I : interval) : interval :=
  match I with
  | Some (a, b) => if (0 <? a)%Z then Some (- ln_upper (ceil_div (one * one) a), ln_upper b)%Z else None
  | None => None
  end.

Lemma iln_contains I x : contains I x -> contains (iln I) (ln x).
Proof.
  destruct I as [[a b]|]; simpl; auto. intros [A B]. destruct (Z.ltb_spec 0 a) as [P|]; simpl; auto.
  pose proof one_R as O. apply (IZR_lt 0) in P as Pa.
  assert (Px : 0 < x) by (apply Rmult_lt_reg_r with (IZR one); lra).
  split; [|apply ln_upper_ge; auto].
  assert (Pi : 0 < / x) by (apply Rinv_0_lt_compat; auto).
  assert (Q : ln (/ x) * IZR one <= IZR (ln_upper (ceil_div (one * one) a))).
  { apply ln_upper_ge; auto. eapply Rle_trans; [|apply ceil_ge; auto]. rewrite mult_IZR.
    apply Rmult_le_reg_r with (IZR a); auto.
    replace (IZR one * IZR one / IZR a * IZR a) with (IZR one * IZR one) by (field; lra).
    apply Rle_trans with (/ x * IZR one * (x * IZR one)); [|right; field; lra].
    apply Rmult_le_compat_l; auto. apply Rmult_le_pos; lra. }
  rewrite ln_Rinv in Q by auto. rewrite opp_IZR. lra.
Qed.

(** ** Nearness *)

Definition near (v eps : Q) (I : interval) : bool :=
  match sub I (of_Q v), of_Q eps with
  | Some (a, b), Some (e, _) => ((- e <=? a) && (b <=? e))%Z
  | _, _ => false
  end.

Lemma near_sound v eps I x : contains I x -> near v eps I = true -> Rabs (x - Q2R v) <= Q2R eps.
Proof.
  intros C. pose proof (sub_contains _ _ _ _ C (of_Q_contains v)) as S. pose proof (of_Q_contains eps) as E.
  unfold near. destruct (sub I (of_Q v)) as [[a b]|]; [|discriminate]. destruct (of_Q eps) as [[e e']|]; [|discriminate].
  simpl in S, E. intros T. apply andb_prop in T. destruct T as [T T'].
  apply Z.leb_le, IZR_le in T. apply Z.leb_le, IZR_le in T'. rewrite opp_IZR in T. pose proof one_R.
  apply Rabs_le. split; apply Rmult_le_reg_r with (IZR one); lra.
Qed.
