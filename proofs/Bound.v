(** Chapter 2: the bound, its equality case, and the stability of the loss around it. *)

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

(** sum_B sum_{c acts in B} n_{B,c} floor_{B,c}. *)
Definition loss_bound (p : problem) : R :=
  sum (family p) (fun B =>
    sum (filter (acts (L p) (y p) B) (seq 0 (k p))) (fun c => INR (count (y p) B c) * floor (L p) (y p) (k p) B c)).

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

(** Statement (f): the stability inequality. *)
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

(** Statement (a): Theorems 1 and 2, for every loss of the family. *)
Theorem bound : loss_bound p <= objective p H.
Proof. apply bound_gram, feasible_gram, F. Qed.

(** Statement (c). *)
Theorem equality :
  objective p H = loss_bound p <->
  (forall B i, In B (family p) -> In i (anchors (L p) (y p) B) -> tight (L p) (y p) B i (gram (d p) H i)).
Proof. apply equality_gram, feasible_gram, F. Qed.

(** Statement (f). *)
Theorem stability : amiss (gram (d p) H) <= objective p H - loss_bound p.
Proof. apply stability_gram, feasible_gram, F. Qed.

(** Statement (f), pair by pair: what a gap implies. *)
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

(** Statement (b). *)
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

(** Statement (f): loss minus bound as a sum of logarithms of what is amiss; of any real Gram matrix. *)
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
