(** Chapter 1: the problem and the losses.

    Samples are 0..n-1 with labels below k, a batch is a list of samples without repetition, a family any
    list of batches (overlaps allowed). An embedding gives every sample d coordinates; UFM+ asks that
    they be nonnegative and of norm at most 1. Every loss sees the Gram matrix only. *)

From Coq Require Import Reals Lra Lia List Arith Bool.
From UFM Require Import Sums.
Import ListNotations.
Open Scope R_scope.

(** ** Batches *)

Definition positives (y : nat -> nat) (B : list nat) (i : nat) : list nat :=
  filter (fun j => y j =? y i)%nat (others B i).

Definition negatives (y : nat -> nat) (B : list nat) (i : nat) : list nat :=
  filter (fun l => negb (y l =? y i)%nat) B.

Definition of_class (y : nat -> nat) (B : list nat) (c : nat) : list nat :=
  filter (fun i => y i =? c)%nat B.

(** n_{B,c}; n_B is [length B]. *)
Definition count (y : nat -> nat) (B : list nat) (c : nat) : nat := length (of_class y B c).

(** ** Losses *)

Inductive loss : Type :=
  (** weights, margins and temperatures, all by batch and class of the anchor (margins also by class of
      the other sample), and whether the positives stand in the denominator (alpha) *)
  | LogSumExp (weight : list nat -> nat -> R) (margin : list nat -> nat -> nat -> R) (tau : list nat -> nat -> R) (alpha : bool)
  (** pairwise logistic; [everyone] also counts anchors without a positive *)
  | Sigmoid (weight : list nat -> nat -> R) (scale bias : R) (everyone : bool)
  (** the mean over positives inside the logarithm *)
  | SupConIn (weight : list nat -> nat -> R) (tau : list nat -> nat -> R).

Definition valid (L : loss) : Prop :=
  match L with
  | LogSumExp weight _ tau _ => forall B c, 0 < weight B c /\ 0 < tau B c
  | Sigmoid weight scale _ _ => 0 < scale /\ forall B c, 0 < weight B c
  | SupConIn weight tau => forall B c, 0 < weight B c /\ 0 < tau B c
  end.

(** Whether anchors of class c contribute in batch B. They need a positive; without the positives in the
    denominator they need a negative too. *)
Definition acts (L : loss) (y : nat -> nat) (B : list nat) (c : nat) : bool :=
  match L with
  | LogSumExp _ _ _ alpha => (2 <=? count y B c)%nat && (alpha || (count y B c <? length B)%nat)
  | Sigmoid _ _ _ everyone => everyone || (2 <=? count y B c)%nat
  | SupConIn _ _ => (2 <=? count y B c)%nat
  end.

(** What anchor i of batch B contributes, g its cosines (the row G_i of the Gram matrix). *)
Definition row (L : loss) (y : nat -> nat) (B : list nat) (i : nat) (g : nat -> R) : R :=
  let c := y i in
  let pos := positives y B i in
  let neg := negatives y B i in
  match L with
  | LogSumExp weight margin tau alpha =>
      weight B c * (ln ((if alpha then sum pos (fun j => exp (margin B c c + g j / tau B c)) else 0)
                      + sum neg (fun l => exp (margin B c (y l) + g l / tau B c)))
                  - mean pos (fun j => g j / tau B c))
  | Sigmoid weight scale bias _ =>
      weight B c * (sum pos (fun j => ln (1 + exp (- (scale * g j + bias))))
                  + sum neg (fun l => ln (1 + exp (scale * g l + bias))))
  | SupConIn weight tau =>
      weight B c * (ln (sum pos (fun j => exp (g j / tau B c)) + sum neg (fun l => exp (g l / tau B c)))
                  - ln (mean pos (fun j => exp (g j / tau B c))))
  end.

Definition anchors (L : loss) (y : nat -> nat) (B : list nat) : list nat :=
  filter (fun i => acts L y B (y i)) B.

Definition value (L : loss) (y : nat -> nat) (family : list (list nat)) (G : nat -> nat -> R) : R :=
  sum family (fun B => sum (anchors L y B) (fun i => row L y B i (G i))).

(** The supervised contrastive loss, as the paper has it; [value_SCL] below says it is of the family. *)
Definition scl (y : nat -> nat) (tau : R) (family : list (list nat)) (G : nat -> nat -> R) : R :=
  sum family (fun B => sum (filter (fun i => 2 <=? count y B (y i))%nat B) (fun i =>
    ln (sum (others B i) (fun l => exp (G i l / tau)))
    - / (INR (count y B (y i)) - 1) * sum (positives y B i) (fun j => G i j / tau))).

Definition SCL (tau : R) : loss := LogSumExp (fun _ _ => 1) (fun _ _ _ => 0) (fun _ _ => tau) true.

(** ** The model *)

Definition gram (d : nat) (H : nat -> nat -> R) (i j : nat) : R := sum (seq 0 d) (fun r => H i r * H j r).

Record problem : Type := Problem {
  n : nat;                      (* samples *)
  k : nat;                      (* classes *)
  d : nat;                      (* dimension *)
  y : nat -> nat;               (* labels *)
  family : list (list nat);     (* batches *)
  L : loss
}.

Record well_formed (p : problem) : Prop := {
  labels_below : forall i, (i < n p)%nat -> (y p i < k p)%nat;
  batches_distinct : forall B, In B (family p) -> NoDup B;
  batches_below : forall B i, In B (family p) -> In i B -> (i < n p)%nat;
  loss_valid : valid (L p)
}.

Definition feasible (p : problem) (H : nat -> nat -> R) : Prop :=
  forall i, (i < n p)%nat -> (forall r, (r < d p)%nat -> 0 <= H i r) /\ gram (d p) H i i <= 1.

Definition objective (p : problem) (H : nat -> nat -> R) : R := value (L p) (y p) (family p) (gram (d p) H).

Definition minimiser (p : problem) (H : nat -> nat -> R) : Prop :=
  feasible p H /\ forall H', feasible p H' -> objective p H <= objective p H'.

(** The Gram matrix of an orthogonal frame with collapsed classes. *)
Definition frame_gram (y : nat -> nat) (i j : nat) : R := if (y i =? y j)%nat then 1 else 0.

(** Neural collapse onto an orthogonal frame. *)
Definition is_frame (p : problem) (H : nat -> nat -> R) : Prop :=
  forall i j, (i < n p)%nat -> (j < n p)%nat -> gram (d p) H i j = frame_gram (y p) i j.

(** The frame on the first k axes. *)
Definition axes (col : nat -> nat) (i r : nat) : R := if (r =? col i)%nat then 1 else 0.

(** ** Counting *)

Lemma in_positives y B i j : In j (positives y B i) <-> In j B /\ j <> i /\ y j = y i.
Proof. unfold positives. rewrite filter_In, in_others, Nat.eqb_eq. tauto. Qed.

Lemma in_negatives y B i l : In l (negatives y B i) <-> In l B /\ y l <> y i.
Proof. unfold negatives. rewrite filter_In, negb_true_iff, Nat.eqb_neq. tauto. Qed.

Lemma in_of_class y B c i : In i (of_class y B c) <-> In i B /\ y i = c.
Proof. unfold of_class. rewrite filter_In, Nat.eqb_eq. tauto. Qed.

Lemma in_anchors L y B i : In i (anchors L y B) <-> In i B /\ acts L y B (y i) = true.
Proof. unfold anchors. rewrite filter_In. tauto. Qed.

Lemma count_INR y B c : INR (count y B c) = sum B (fun i => if (y i =? c)%nat then 1 else 0).
Proof. unfold count, of_class. rewrite <- sum_filter, sum_const. ring. Qed.

Lemma positives_length y B i :
  NoDup B -> In i B -> length (positives y B i) = (count y B (y i) - 1)%nat.
Proof.
  intros D I. assert (E : count y B (y i) = S (length (positives y B i))); [|lia].
  apply INR_eq. rewrite S_INR, count_INR, (sum_pick B i) by auto.
  rewrite Nat.eqb_refl, <- sum_filter, sum_const. unfold positives. ring.
Qed.

Lemma filter_lengths {A} (f : A -> bool) l :
  (length (filter f l) + length (filter (fun x => negb (f x)) l) = length l)%nat.
Proof. induction l as [|a l IH]; simpl; auto. destruct (f a); simpl; lia. Qed.

Lemma negatives_length y B i : length (negatives y B i) = (length B - count y B (y i))%nat.
Proof.
  unfold negatives, count, of_class. pose proof (filter_lengths (fun l => (y l =? y i)%nat) B) as E.
  cbv beta in E. lia.
Qed.

Lemma length_nonempty {A} (l : list A) : l <> [] <-> (0 < length l)%nat.
Proof. destruct l; simpl; split; intros; try lia; congruence. Qed.

Lemma positives_some y B i : NoDup B -> In i B -> positives y B i <> [] <-> (2 <= count y B (y i))%nat.
Proof. intros D I. rewrite length_nonempty, positives_length by auto. lia. Qed.

Lemma negatives_some y B i : negatives y B i <> [] <-> (count y B (y i) < length B)%nat.
Proof. rewrite length_nonempty, negatives_length. lia. Qed.

(** Two samples of one class make that class active. *)
Lemma two_of_class y B i j : NoDup B -> In i B -> In j B -> i <> j -> y j = y i -> (2 <= count y B (y i))%nat.
Proof.
  intros D I J N E. apply positives_some; auto. intros Z.
  assert (X : In j (positives y B i)) by (apply in_positives; auto). rewrite Z in X. destruct X.
Qed.

Lemma sum_others y B i f :
  NoDup B -> In i B -> sum (others B i) f = sum (positives y B i) f + sum (negatives y B i) f.
Proof.
  intros D I. rewrite (sum_split _ (fun j => (y j =? y i)%nat)). unfold positives. f_equal.
  unfold negatives, others. rewrite !sum_filter.
  apply sum_ext. intros l J. destruct (Nat.eqb_spec l i) as [->|]; simpl; auto.
  rewrite Nat.eqb_refl. reflexivity.
Qed.

Theorem value_SCL y tau family G :
  (forall B, In B family -> NoDup B) -> value (SCL tau) y family G = scl y tau family G.
Proof.
  intros D. apply sum_ext. intros B IB. unfold anchors, acts, SCL.
  rewrite (filter_ext _ (fun i => (2 <=? count y B (y i))%nat))
    by (intros i; rewrite orb_true_l, andb_true_r; reflexivity).
  apply sum_ext. intros i I. apply filter_In in I. destruct I as [I A]. apply Nat.leb_le in A.
  unfold row, mean. rewrite Rmult_1_l, (sum_others y B i) by auto.
  rewrite positives_length, minus_INR by (auto; lia). change (INR 1) with 1.
  unfold Rdiv at 3. rewrite (Rmult_comm _ (/ (_ - 1))). f_equal.
  f_equal. f_equal; apply sum_ext; intros; f_equal; ring.
Qed.

(** ** Gram matrices *)

Lemma gram_sym d H i j : gram d H i j = gram d H j i.
Proof. apply sum_ext. intros; ring. Qed.

Lemma gram_distance d H i j :
  sum (seq 0 d) (fun r => (H i r - H j r) ^ 2) = gram d H i i + gram d H j j - 2 * gram d H i j.
Proof.
  unfold gram. rewrite <- sum_scal, <- sum_plus, <- sum_minus. apply sum_ext. intros; ring.
Qed.

Lemma gram_le_1 d H i j : gram d H i i <= 1 -> gram d H j j <= 1 -> gram d H i j <= 1.
Proof.
  intros A B. assert (P : 0 <= sum (seq 0 d) (fun r => (H i r - H j r) ^ 2))
    by (apply sum_nonneg; intros; apply pow2_ge_0).
  rewrite gram_distance in P. lra.
Qed.

Lemma gram_ge_m1 d H i j : gram d H i i <= 1 -> gram d H j j <= 1 -> -1 <= gram d H i j.
Proof.
  intros A B. assert (P : 0 <= sum (seq 0 d) (fun r => (H i r + H j r) ^ 2))
    by (apply sum_nonneg; intros; apply pow2_ge_0).
  replace (sum (seq 0 d) (fun r => (H i r + H j r) ^ 2))
    with (gram d H i i + gram d H j j + 2 * gram d H i j) in P; [lra|].
  unfold gram. rewrite <- sum_scal, <- !sum_plus. apply sum_ext. intros; ring.
Qed.

(** Of vectors in the unit ball, a cosine of 1 means equal unit vectors. *)
Lemma gram_1_equal d H i j :
  gram d H i i <= 1 -> gram d H j j <= 1 -> gram d H i j = 1 ->
  gram d H i i = 1 /\ gram d H j j = 1 /\ forall r, (r < d)%nat -> H i r = H j r.
Proof.
  intros A B E. assert (P : forall r, In r (seq 0 d) -> 0 <= (H i r - H j r) ^ 2) by (intros; apply pow2_ge_0).
  pose proof (sum_nonneg _ _ P) as S. rewrite gram_distance in S.
  split; [lra|]. split; [lra|]. intros r Lr.
  assert (Z : sum (seq 0 d) (fun r => (H i r - H j r) ^ 2) = 0) by (rewrite gram_distance; lra).
  pose proof (sum_zero_each _ _ P Z r) as X. rewrite in_seq in X. simpl in X.
  assert (Y : (H i r - H j r) * ((H i r - H j r) * 1) = 0) by (apply X; lia).
  apply Rmult_integral in Y. destruct Y as [Y|Y]; [lra|]. apply Rmult_integral in Y. lra.
Qed.

Lemma gram_equal_rows d H i j m : (forall r, (r < d)%nat -> H i r = H j r) -> gram d H i m = gram d H j m.
Proof. intros E. apply sum_ext. intros r I. apply in_seq in I. rewrite E by lia. reflexivity. Qed.

Lemma gram_axes d col i j :
  (col i < d)%nat -> gram d (axes col) i j = if (col i =? col j)%nat then 1 else 0.
Proof.
  intros D. unfold gram, axes.
  rewrite (sum_ext _ _ (fun r => if (r =? col i)%nat then (if (r =? col j)%nat then 1 else 0) else 0))
    by (intros; destruct (_ =? _)%nat; ring).
  rewrite (sum_delta (seq 0 d) (col i) (fun r => if (r =? col j)%nat then 1 else 0)); auto using seq_NoDup.
  apply in_seq. lia.
Qed.

Section Feasible.
Variables (p : problem) (H : nat -> nat -> R).
Hypothesis F : feasible p H.

Lemma feasible_gram i j : (i < n p)%nat -> (j < n p)%nat -> 0 <= gram (d p) H i j <= 1.
Proof.
  intros I J. destruct (F i I) as [Pi Bi]. destruct (F j J) as [Pj Bj]. split; [|apply gram_le_1; auto].
  apply sum_nonneg. intros r R. apply in_seq in R. apply Rmult_le_pos; [apply Pi | apply Pj]; lia.
Qed.
End Feasible.
