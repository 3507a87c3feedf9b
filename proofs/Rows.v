(** Chapter 2, one anchor of a batch: what it contributes at least, its slopes at the frame, when it is tight. *)

From Coq Require Import Reals Lra Lia List Arith Bool.
From UFM Require Import Sums Anchor OtherLosses Model.
Import ListNotations.
Open Scope R_scope.

(** ** Closed forms, by classes *)

Definition other_classes (k c : nat) : list nat := others (seq 0 k) c.

(** Z of class c in batch B: alpha (n_{B,c} - 1) e^{a(c,c)} + sum_{e <> c} n_{B,e} e^{a(c,e) - 1/tau}. *)
Definition Z (margin : list nat -> nat -> nat -> R) (tau : list nat -> nat -> R) (alpha : bool)
    (y : nat -> nat) (k : nat) (B : list nat) (c : nat) : R :=
  (if alpha then INR (count y B c - 1) * exp (margin B c c) else 0)
  + sum (other_classes k c) (fun e => INR (count y B e) * exp (margin B c e - 1 / tau B c)).

(** The least that an anchor of class c contributes. *)
Definition floor (L : loss) (y : nat -> nat) (k : nat) (B : list nat) (c : nat) : R :=
  match L with
  | LogSumExp weight margin tau alpha => weight B c * ln (Z margin tau alpha y k B c)
  | Sigmoid weight scale bias _ =>
      weight B c * (INR (count y B c - 1) * softplus (- (scale + bias))
                  + INR (length B - count y B c) * softplus bias)
  | SupConIn weight tau =>
      weight B c * ln (INR (count y B c - 1) + INR (length B - count y B c) * exp (- (1 / tau B c)))
  end.

(** The slopes of the loss at the frame: how hard an anchor of class c in batch B repels a sample of class e,
    and attracts one of its own. *)
Definition repulsion (L : loss) (y : nat -> nat) (k : nat) (B : list nat) (c e : nat) : R :=
  match L with
  | LogSumExp weight margin tau alpha =>
      weight B c * (exp (margin B c e - 1 / tau B c) / Z margin tau alpha y k B c / tau B c)
  | Sigmoid weight scale bias _ => weight B c * (scale * logistic bias)
  | SupConIn weight tau =>
      weight B c * (exp (- (1 / tau B c))
        / (INR (count y B c - 1) + INR (length B - count y B c) * exp (- (1 / tau B c))) / tau B c)
  end.

Definition attraction (L : loss) (y : nat -> nat) (k : nat) (B : list nat) (c : nat) : R :=
  match L with
  | LogSumExp weight margin tau alpha =>
      weight B c * ((/ INR (count y B c - 1)
                   - (if alpha then exp (margin B c c) else 0) / Z margin tau alpha y k B c) / tau B c)
  | Sigmoid weight scale bias _ => weight B c * (scale * logistic (- (scale + bias)))
  | SupConIn weight tau =>
      weight B c * (INR (length B - count y B c) * exp (- (1 / tau B c)) * (1 - exp (- (1 / tau B c)))
        / (INR (count y B c - 1)
           * (INR (count y B c - 1) + INR (length B - count y B c) * exp (- (1 / tau B c)))))
  end.

(** What equality asks of an anchor: in a batch with another class its positives are at 1 and its negatives at
    0. In a batch of one class the loss decides: its positives are all equal (alpha = 1), at 1 (sigmoid),
    or free (SupCon-in). *)
Definition tight (L : loss) (y : nat -> nat) (B : list nat) (i : nat) (g : nat -> R) : Prop :=
  ((negatives y B i <> [] \/ match L with Sigmoid _ _ _ _ => True | _ => False end) ->
     (forall j, In j (positives y B i) -> g j = 1) /\ (forall l, In l (negatives y B i) -> g l = 0)) /\
  match L with
  | LogSumExp _ _ _ true => forall j j', In j (positives y B i) -> In j' (positives y B i) -> g j = g j'
  | _ => True
  end.

Lemma sum_negatives_by_class y k B i f :
  (forall l, In l B -> (y l < k)%nat) ->
  sum (negatives y B i) (fun l => f (y l)) = sum (other_classes k (y i)) (fun e => INR (count y B e) * f e).
Proof.
  intros Y. unfold negatives, other_classes, others. rewrite !sum_filter, (sum_by_class y k) by auto.
  apply sum_ext. intros e _.
  rewrite (sum_ext _ _ (fun _ => if negb (e =? y i)%nat then f e else 0)).
  - rewrite sum_const. unfold count, of_class. destruct (negb _); ring.
  - intros l J. apply filter_In in J. destruct J as [_ J]. apply Nat.eqb_eq in J. rewrite J. reflexivity.
Qed.

Lemma loss_cases L :
  (exists w a tau alpha, L = LogSumExp w a tau alpha) \/ (exists w s b ev, L = Sigmoid w s b ev)
  \/ (exists w tau, L = SupConIn w tau).
Proof. destruct L; eauto 10. Qed.

(** ** One anchor *)

Section OneAnchor.
Variables (L : loss) (y : nat -> nat) (k : nat) (B : list nat) (i : nat) (g : nat -> R).
Hypothesis L_valid : valid L.
Hypothesis B_distinct : NoDup B.
Hypothesis B_labels : forall l, In l B -> (y l < k)%nat.
Hypothesis i_in : In i B.
Hypothesis i_acts : acts L y B (y i) = true.

Let pos := positives y B i.
Let neg := negatives y B i.

(* Cases over the loss by an equation E, V its validity: the section's hypotheses stay as they are. *)
Ltac by_loss :=
  pose proof L_valid as V;
  destruct (loss_cases L) as [(w & a & tau & alpha & E) | [(w & s & b & ev & E) | (w & tau & E)]];
  rewrite E in V |- *.

Lemma acting_lse weight margin tau alpha :
  L = LogSumExp weight margin tau alpha -> pos <> [] /\ (alpha = true \/ neg <> []).
Proof.
  intros E. revert i_acts. rewrite E. unfold acts. rewrite andb_true_iff, orb_true_iff, Nat.leb_le, Nat.ltb_lt.
  intros [A C]. split; [apply positives_some; auto|].
  destruct C as [->|C]; [auto | right; apply negatives_some; auto].
Qed.

Lemma acting_supcon_in weight tau : L = SupConIn weight tau -> pos <> [].
Proof.
  intros E. revert i_acts. rewrite E. unfold acts. rewrite Nat.leb_le. intros A. apply positives_some; auto.
Qed.

Lemma Z_lse margin tau alpha :
  Z margin tau alpha y k B (y i) = lse_Z alpha (margin B (y i) (y i)) (tau B (y i)) (fun l => margin B (y i) (y l)) pos neg.
Proof.
  unfold Z, lse_Z, pos, neg. rewrite positives_length by auto.
  rewrite (sum_negatives_by_class y k B i (fun e => exp (margin B (y i) e - 1 / tau B (y i)))); auto.
Qed.

Lemma supcon_in_Z_counts tau :
  INR (count y B (y i) - 1) + INR (length B - count y B (y i)) * exp (- (1 / tau B (y i)))
  = supcon_in_Z (tau B (y i)) pos neg.
Proof.
  unfold supcon_in_Z, pos, neg. rewrite positives_length, negatives_length by auto. reflexivity.
Qed.

Lemma row_attained :
  (forall j, In j pos -> g j = 1) -> (forall l, In l neg -> g l = 0) -> row L y B i g = floor L y k B (y i).
Proof.
  intros P N. by_loss; unfold floor.
  - rewrite Z_lse. destruct (acting_lse _ _ _ _ E). destruct (V B (y i)).
    rewrite <- (lse_attained alpha (a B (y i) (y i)) (tau B (y i)) (fun l => a B (y i) (y l)) pos neg) with (g := g); auto.
  - replace (count y B (y i) - 1)%nat with (length pos) by (apply positives_length; auto).
    replace (length B - count y B (y i))%nat with (length neg) by apply negatives_length.
    change (w B (y i) * sigmoid s b pos neg g = w B (y i) * sigmoid_floor s b pos neg).
    rewrite sigmoid_attained; auto.
  - rewrite supcon_in_Z_counts. pose proof (acting_supcon_in _ _ E). destruct (V B (y i)).
    change (w B (y i) * supcon_in (tau B (y i)) pos neg g = w B (y i) * ln (supcon_in_Z (tau B (y i)) pos neg)).
    rewrite supcon_in_attained; auto.
Qed.

(** Statement (c), one way: what equality asks suffices. *)
Lemma row_tight : tight L y B i g -> row L y B i g = floor L y k B (y i).
Proof.
  intros [M S]. destruct (list_eq_dec Nat.eq_dec neg []) as [Nil|N].
  2:{ apply row_attained; apply M; auto. }
  revert M S. by_loss; intros M S.
  - destruct alpha.
    + unfold floor. rewrite Z_lse. destruct (acting_lse _ _ _ _ E). destruct (V B (y i)).
      rewrite <- (lse_attained_alone true (a B (y i) (y i)) (tau B (y i)) (fun l => a B (y i) (y l)) pos neg) with (g := g); auto.
    + destruct (acting_lse _ _ _ _ E) as [_ [|]]; [discriminate | tauto].
  - rewrite <- E. apply row_attained; apply M; auto.
  - unfold floor. rewrite supcon_in_Z_counts. pose proof (acting_supcon_in _ _ E). destruct (V B (y i)).
    change (w B (y i) * supcon_in (tau B (y i)) pos neg g = w B (y i) * ln (supcon_in_Z (tau B (y i)) pos neg)).
    rewrite supcon_in_alone; auto.
Qed.

Lemma repulsion_pos e : 0 < repulsion L y k B (y i) e.
Proof.
  by_loss; unfold repulsion.
  - destruct (acting_lse _ _ _ _ E). destruct (V B (y i)). rewrite Z_lse.
    apply Rmult_lt_0_compat; auto. repeat apply Rdiv_lt_0_compat; auto using exp_pos, lse_Z_pos.
  - destruct V as [S W]. exact (Rmult_lt_0_compat _ _ (W _ _) (sigmoid_repulsion_pos s b S)).
  - pose proof (acting_supcon_in _ _ E). destruct (V B (y i)). rewrite supcon_in_Z_counts.
    apply Rmult_lt_0_compat; auto. apply supcon_in_repulsion_pos; auto.
Qed.

Lemma attraction_lse w a tau alpha :
  L = LogSumExp w a tau alpha ->
  attraction (LogSumExp w a tau alpha) y k B (y i) = w B (y i) * lse_attraction alpha (a B (y i) (y i)) (tau B (y i)) (fun l => a B (y i) (y l)) pos neg.
Proof.
  intros _. unfold attraction, lse_attraction. rewrite Z_lse. unfold pos.
  rewrite positives_length by auto. reflexivity.
Qed.

Lemma attraction_supcon_in w tau :
  L = SupConIn w tau -> attraction (SupConIn w tau) y k B (y i) = w B (y i) * supcon_in_attraction (tau B (y i)) pos neg.
Proof.
  intros _. unfold attraction, supcon_in_attraction. rewrite supcon_in_Z_counts. unfold pos, neg.
  rewrite positives_length, negatives_length by auto. reflexivity.
Qed.

Lemma attraction_nonneg : 0 <= attraction L y k B (y i).
Proof.
  by_loss.
  - rewrite (attraction_lse _ _ _ _ E). destruct (acting_lse _ _ _ _ E). destruct (V B (y i)).
    apply Rmult_le_pos; [lra|]. apply lse_attraction_nonneg; auto.
  - destruct V as [? W]. specialize (W B (y i)). left. exact (Rmult_lt_0_compat _ _ W (sigmoid_attraction_pos s b H)).
  - rewrite (attraction_supcon_in _ _ E). pose proof (acting_supcon_in _ _ E). destruct (V B (y i)).
    apply Rmult_le_pos; [lra|]. apply supcon_in_attraction_nonneg; auto.
Qed.

(** It is positive wherever the batch has another class, and always for the sigmoid loss. *)
Lemma attraction_pos :
  neg <> [] \/ match L with Sigmoid _ _ _ _ => True | _ => False end -> 0 < attraction L y k B (y i).
Proof.
  intros N. revert N. by_loss; intros N.
  - rewrite (attraction_lse _ _ _ _ E). destruct (acting_lse _ _ _ _ E). destruct (V B (y i)).
    apply Rmult_lt_0_compat; auto. apply lse_attraction_pos; auto. tauto.
  - destruct V as [? W]. specialize (W B (y i)). exact (Rmult_lt_0_compat _ _ W (sigmoid_attraction_pos s b H)).
  - rewrite (attraction_supcon_in _ _ E). pose proof (acting_supcon_in _ _ E). destruct (V B (y i)).
    apply Rmult_lt_0_compat; auto. apply supcon_in_attraction_pos; auto. tauto.
Qed.

Section Cosines.
Hypothesis g_in : forall l, In l B -> 0 <= g l <= 1.

(** Statement (f), one anchor. *)
Lemma row_stability :
  sum neg (fun l => repulsion L y k B (y i) (y l) * g l) + sum pos (fun j => attraction L y k B (y i) * (1 - g j))
  <= row L y B i g - floor L y k B (y i).
Proof.
  by_loss.
  - rewrite (attraction_lse _ _ _ _ E). destruct (acting_lse _ _ _ _ E). destruct (V B (y i)) as [W T].
    pose proof (lse_stability alpha (a B (y i) (y i)) (tau B (y i)) (fun l => a B (y i) (y l)) pos neg T H H0 g) as S.
    apply Rmult_le_compat_l with (r := w B (y i)) in S; [|lra].
    unfold floor, repulsion. rewrite Z_lse.
    rewrite Rmult_minus_distr_l, Rmult_plus_distr_l, <- !sum_scal in S.
    eapply Rle_trans; [|apply S]. right. f_equal; apply sum_ext; intros; unfold lse_repulsion; ring.
  - destruct V as [T W]. specialize (W B (y i)).
    pose proof (sigmoid_stability s b pos neg g) as S.
    apply Rmult_le_compat_l with (r := w B (y i)) in S; [|lra].
    unfold floor, repulsion, attraction.
    replace (count y B (y i) - 1)%nat with (length pos) by (apply positives_length; auto).
    replace (length B - count y B (y i))%nat with (length neg) by apply negatives_length.
    rewrite Rmult_minus_distr_l, Rmult_plus_distr_l, <- !sum_scal in S.
    eapply Rle_trans; [|apply S]. right. unfold sigmoid_repulsion, sigmoid_attraction.
    f_equal; apply sum_ext; intros; ring.
  - rewrite (attraction_supcon_in _ _ E). pose proof (acting_supcon_in _ _ E). destruct (V B (y i)) as [W T].
    assert (P : forall j, In j pos -> 0 <= g j <= 1).
    { intros j J. apply in_positives in J. apply g_in; tauto. }
    pose proof (supcon_in_stability (tau B (y i)) pos neg T H g P) as S.
    apply Rmult_le_compat_l with (r := w B (y i)) in S; [|lra].
    unfold floor, repulsion. rewrite supcon_in_Z_counts.
    rewrite Rmult_minus_distr_l, Rmult_plus_distr_l, <- !sum_scal in S.
    eapply Rle_trans; [|apply S]. right. unfold supcon_in_repulsion. f_equal; apply sum_ext; intros; ring.
Qed.

Lemma row_terms :
  (forall l, In l neg -> 0 <= repulsion L y k B (y i) (y l) * g l) /\
  (forall j, In j pos -> 0 <= attraction L y k B (y i) * (1 - g j)).
Proof.
  split; intros x I.
  - apply in_negatives in I. apply Rmult_le_pos; [left; apply repulsion_pos | apply g_in; tauto].
  - apply in_positives in I. apply Rmult_le_pos; [apply attraction_nonneg|].
    pose proof (g_in x (proj1 I)). lra.
Qed.

Lemma row_bound : floor L y k B (y i) <= row L y B i g.
Proof.
  pose proof row_stability as S. destruct row_terms as [A C].
  apply sum_nonneg in A. apply sum_nonneg in C. lra.
Qed.

(** Statement (c), the other way. *)
Lemma row_equality : row L y B i g = floor L y k B (y i) -> tight L y B i g.
Proof.
  intros E. pose proof row_stability as S. destruct row_terms as [A C].
  pose proof (sum_nonneg _ _ A) as A'. pose proof (sum_nonneg _ _ C) as C'. split.
  - intros N. split; intros x I.
    + assert (X : attraction L y k B (y i) * (1 - g x) = 0) by (apply (sum_zero_each _ _ C); auto; lra).
      apply Rmult_integral in X. pose proof (attraction_pos N). lra.
    + assert (X : repulsion L y k B (y i) (y x) * g x = 0).
      { apply (sum_zero_each _ (fun l => repulsion L y k B (y i) (y l) * g l) A); auto; lra. }
      apply Rmult_integral in X. pose proof (repulsion_pos (y x)). lra.
  - revert E. by_loss; auto. intros E'. destruct alpha; auto.
    destruct (acting_lse _ _ _ _ E) as [P T]. destruct (V B (y i)) as [W T'].
    unfold floor in E'. rewrite Z_lse in E'.
    apply (Rmult_eq_reg_l (w B (y i))) in E'; [|lra].
    apply (lse_equality true _ _ (fun l => a B (y i) (y l)) pos neg T' P T g) in E'.
    + destruct E' as [X _]. intros j j' J J'. rewrite (X eq_refl j J), (X eq_refl j' J'). reflexivity.
    + intros j J. apply in_positives in J. apply g_in; tauto.
    + intros l I. apply in_negatives in I. apply g_in; tauto.
Qed.
End Cosines.
End OneAnchor.
