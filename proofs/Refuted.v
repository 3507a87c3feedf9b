(** Wrong variants, each with a counterexample: what the hypotheses are for. *)

From Coq Require Import Reals Lra Lia List Arith Bool.
From UFM Require Import Sums Anchor OtherLosses Model Rows Bound Uniqueness Colouring Psd Duality.
Import ListNotations.
Open Scope R_scope.

(** Four samples, two of each of two classes; plain SCL at tau = 1. *)
Definition halves (i : nat) : nat := if (i <? 2)%nat then 0%nat else 1%nat.

Definition four (d : nat) (family : list (list nat)) : problem := Problem 4 2 d halves family (SCL 1).

Ltac cases_in I :=
  vm_compute in I; try (exfalso; exact I); repeat (destruct I as [I|I]; try (exfalso; exact I); try subst).

Lemma SCL_valid : valid (SCL 1).
Proof. simpl. intros; lra. Qed.

Lemma four_well_formed d family :
  (forall B, In B family -> NoDup B /\ forall i, In i B -> (i < 4)%nat) -> well_formed (four d family).
Proof.
  intros F. constructor; simpl.
  - intros i I. unfold halves. destruct (_ <? _)%nat; lia.
  - intros B IB. apply F, IB.
  - intros B i IB I. apply (F B IB), I.
  - apply SCL_valid.
Qed.

Ltac distinct := repeat (constructor; [simpl; lia|]); constructor.

Ltac wf := apply four_well_formed; intros B IB; cases_in IB; (split; [distinct | intros i I; cases_in I; lia]).

Definition everyone : list nat := [0; 1; 2; 3]%nat.

Lemma everyone_wf d : well_formed (four d [everyone]).
Proof. wf. Qed.

(** The loss at cosine a within classes and b across. *)
Lemma four_value d H a b :
  (forall i j, (i < 4)%nat -> (j < 4)%nat -> i <> j -> gram d H i j = if (halves i =? halves j)%nat then a else b) ->
  objective (four d [everyone]) H = 4 * (ln (exp a + 2 * exp b) - a).
Proof.
  intros G. unfold objective. simpl L. rewrite value_SCL by (intros B IB; cases_in IB; distinct).
  unfold scl, four. cbn -[gram IZR]. rewrite !G by lia. cbn -[IZR].
  replace (/ (1 + 1 - 1)) with 1 by lra. unfold Rdiv. rewrite Rinv_1, !Rmult_1_r.
  replace (exp a + (exp b + (exp b + 0))) with (exp a + 2 * exp b) by ring.
  replace (exp b + (exp b + (exp a + 0))) with (exp a + 2 * exp b) by ring. ring.
Qed.

Lemma four_bound d : loss_bound (four d [everyone]) = 4 * ln (1 + 2 * exp (- (1))).
Proof.
  rewrite (loss_bound_SCL _ 1 (everyone_wf d)) by reflexivity.
  cbn -[IZR]. replace (1 / 1) with 1 by lra.
  replace (1 + 1 - 1 + (1 + 1 + 1 + 1 - (1 + 1)) * exp (- (1))) with (1 + 2 * exp (- (1))) by ring. ring.
Qed.

Lemma below_the_bound a b : b - a < -1 -> ln (exp a + 2 * exp b) - a < ln (1 + 2 * exp (- (1))).
Proof.
  intros Lt. replace (exp a + 2 * exp b) with (exp a * (1 + 2 * exp (b - a))).
  2:{ unfold Rminus. rewrite exp_plus, exp_Ropp. pose proof (exp_pos a). field. lra. }
  pose proof (exp_pos (b - a)). rewrite ln_mult, ln_exp by (try apply exp_pos; lra).
  assert (exp (b - a) < exp (- (1))) by (apply exp_increasing; lra).
  assert (ln (1 + 2 * exp (b - a)) < ln (1 + 2 * exp (- (1)))) by (apply ln_increasing; lra). lra.
Qed.

(** 1. Without h >= 0 the bound fails: two opposite vectors. *)
Theorem without_sign :
  exists p H, well_formed p /\ in_ball p H /\ objective p H < loss_bound p.
Proof.
  exists (four 2 [everyone]), (fun i r => if (r =? 0)%nat then (if (i <? 2)%nat then 1 else -1) else 0).
  split; [apply everyone_wf|]. split.
  - intros i I. simpl in I. unfold gram. simpl. destruct (_ <? _)%nat; lra.
  - rewrite (four_value _ _ 1 (-1)), four_bound.
    + pose proof (below_the_bound 1 (-1)). lra.
    + intros i j I J N. unfold gram, halves. simpl. destruct (_ <? _)%nat, (_ <? _)%nat; simpl; lra.
Qed.

(** 2. In the ball of radius 2 the bound fails. *)
Theorem radius_2 :
  exists p H, well_formed p /\
    (forall i, (i < n p)%nat -> (forall r, 0 <= H i r) /\ gram (d p) H i i <= 2 ^ 2) /\ objective p H < loss_bound p.
Proof.
  exists (four 2 [everyone]), (fun i r => if (r =? halves i)%nat then 2 else 0).
  split; [apply everyone_wf|]. split.
  - intros i I. split; [intros r; destruct (_ =? _)%nat; lra|].
    unfold gram, halves. simpl. destruct (_ <? _)%nat; simpl; lra.
  - rewrite (four_value _ _ 4 0), four_bound.
    + pose proof (below_the_bound 4 0). lra.
    + intros i j I J N. unfold gram, halves. simpl. destruct (_ <? _)%nat, (_ <? _)%nat; simpl; lra.
Qed.

(** 3. With d < k the bound is not attained. *)
Theorem dimension_below_k :
  exists p, well_formed p /\ (d p < k p)%nat /\ forall H, feasible p H -> loss_bound p < objective p H.
Proof.
  exists (four 1 [everyone]). split; [apply everyone_wf|]. split; [simpl; lia|]. intros H F.
  pose proof (bound _ (everyone_wf 1) H F) as B. destruct B as [|E]; auto. exfalso. symmetry in E.
  set (p := four 1 [everyone]) in *.
  assert (IB : In everyone (family p)) by (left; auto).
  assert (M : mixed (y p) everyone) by (exists 0%nat, 2%nat; simpl; split; [auto | split; [auto | discriminate]]).
  assert (One : gram 1 H 0 1 = 1).
  { apply (glued_forced p (everyone_wf 1) H F E), (glued_batch p everyone); simpl; auto. }
  assert (Two : gram 1 H 2 3 = 1).
  { apply (glued_forced p (everyone_wf 1) H F E), (glued_batch p everyone); simpl; auto. }
  assert (Zero : gram 1 H 0 2 = 0).
  { apply (meet_forced p (everyone_wf 1) H F E). exists everyone. simpl.
    split; [auto|]. split; [auto|]. split; [auto|]. split; [discriminate|]. left; reflexivity. }
  unfold gram in One, Two, Zero. simpl in One, Two, Zero. rewrite Rplus_0_r in One, Two, Zero.
  apply Rmult_integral in Zero. destruct Zero as [Z|Z]; rewrite Z in *; lra.
Qed.

(** A point on axes that attains the bound, by going through all anchors. *)
Ltac attains := apply equality; [assumption | apply placed_feasible |];
  intros B i IB I; cases_in IB; cases_in I;
  (split; [intros M; first
            [ solve [exfalso; vm_compute in M; destruct M as [M|[]]; apply M; reflexivity]
            | split; intros j J; cases_in J; rewrite gram_placed; reflexivity ]
          | simpl; intros j j' J J'; cases_in J; cases_in J'; rewrite ?gram_placed; reflexivity]).

Lemma not_frame p H i j : (i < n p)%nat -> (j < n p)%nat -> gram (d p) H i j <> frame_gram (y p) i j -> ~ is_frame p H.
Proof. intros I J N F. apply N, F; auto. Qed.

(** 4. A class without a mixed batch is not held together, although every two classes meet: sample 1 may vanish. *)
Theorem without_mixed_batch :
  exists p H, well_formed p /\ (k p < d p)%nat /\ meeting p /\ minimiser p H /\ ~ is_frame p H.
Proof.
  set (p := four 3 [[0; 2; 3]; [0; 1]]%nat). assert (W : well_formed p) by wf.
  exists p, (axes (fun i => nth i [0; 3; 1; 1]%nat 3%nat)). split; [auto|]. split; [simpl; lia|]. split; [|split].
  - assert (M : meet p 0 2).
    { exists [0; 2; 3]%nat. simpl. split; [auto|]. split; [auto|]. split; [auto|]. split; [discriminate|]. right. reflexivity. }
    intros i l I J N. simpl in I, J, N. unfold halves in N.
    destruct (Nat.ltb_spec i 2), (Nat.ltb_spec l 2); try tauto; [exists 0%nat, 2%nat | exists 2%nat, 0%nat];
      simpl; unfold halves; destruct (Nat.ltb_spec i 2), (Nat.ltb_spec l 2); try lia; repeat split; auto using meet_sym.
  - apply minimisers_attain; [auto | simpl; lia |]. split; [apply placed_feasible|]. attains.
  - apply not_frame with 1%nat 1%nat; simpl; try lia. rewrite gram_placed. unfold frame_gram. simpl. lra.
Qed.

(** 5. The plain interaction graph (Corollary 2.1 of the paper: an edge for every shared batch) claims too much: here it is
    connected within classes and complete between them, and every feasible point is a minimiser. *)
Theorem plain_graph :
  exists p, well_formed p /\ (k p <= d p)%nat /\
    (forall i j, (i < n p)%nat -> (j < n p)%nat -> y p i = y p j -> exists B, In B (family p) /\ In i B /\ In j B) /\
    (exists B i l, In B (family p) /\ In i B /\ In l B /\ y p i = 0%nat /\ y p l = 1%nat) /\
    forall H, feasible p H -> minimiser p H.
Proof.
  set (p := four 2 [[0; 1]; [2; 3]; [0; 2]]%nat). assert (W : well_formed p) by wf.
  exists p. split; [auto|]. split; [simpl; lia|]. split; [|split].
  - intros i j I J E. simpl in *. unfold halves in E.
    exists (if (i <? 2)%nat then [0; 1]%nat else [2; 3]%nat).
    destruct (Nat.ltb_spec i 2), (Nat.ltb_spec j 2); try discriminate; (split; [simpl; auto | split; simpl; lia]).
  - exists [0; 2]%nat, 0%nat, 2%nat. simpl. tauto.
  - intros H F. apply minimisers_attain; [auto | simpl; lia |]. split; [auto|].
    apply equality; [auto | auto |]. intros B i IB I. cases_in IB; cases_in I;
      (split; [intros M; exfalso; vm_compute in M; destruct M as [M|[]]; apply M; reflexivity
              | simpl; intros j j' J J'; cases_in J; cases_in J'; reflexivity]).
Qed.

(** 6. For d = k connection to oneself and meeting do not suffice: without the hypothesis on colourings a piece of two
    classes may exchange their axes. *)
Definition eight (i : nat) : nat := if (i <? 4)%nat then 0%nat else 1%nat.

Theorem without_colouring :
  exists p H, well_formed p /\ d p = k p /\ settled p /\ no_empty_class p /\ meeting p /\
    (forall i, (i < n p)%nat -> glued p i i) /\ minimiser p H /\ ~ is_frame p H.
Proof.
  set (p := Problem 8 2 2 eight [[0; 1; 4; 5]; [2; 3; 6; 7]]%nat (SCL 1)).
  assert (W : well_formed p).
  { constructor; simpl.
    - intros i I. unfold eight. destruct (_ <? _)%nat; lia.
    - intros B IB. cases_in IB; distinct.
    - intros B i IB I. cases_in IB; cases_in I; lia.
    - apply SCL_valid. }
  assert (Mixed : forall B, In B (family p) -> mixed (y p) B).
  { intros B IB. cases_in IB; [exists 0%nat, 4%nat | exists 2%nat, 6%nat]; simpl; repeat split; auto; discriminate. }
  exists p, (axes (fun i => nth i [0; 0; 1; 1; 1; 1; 0; 0]%nat 2%nat)).
  split; [auto|]. split; [auto|]. split; [|split; [|split; [|split; [|split]]]].
  - intros Q B i j m IB N. destruct N. apply Mixed, IB.
  - intros c Lc. simpl in Lc. exists (4 * c)%nat. destruct c as [|[|c]]; simpl; try lia; split; auto; lia.
  - assert (M : meet p 0 4).
    { exists [0; 1; 4; 5]%nat. simpl. split; [auto|]. split; [auto|]. split; [auto|]. split; [discriminate|]. left. reflexivity. }
    intros i l I J N. simpl in I, J, N. unfold eight in N.
    destruct (Nat.ltb_spec i 4), (Nat.ltb_spec l 4); try tauto; [exists 0%nat, 4%nat | exists 4%nat, 0%nat];
      simpl; unfold eight; destruct (Nat.ltb_spec i 4), (Nat.ltb_spec l 4); try lia; repeat split; auto using meet_sym.
  - assert (Pair : forall i j B, In B (family p) -> In i B -> In j B -> i <> j -> eight i = eight j -> glued p i i).
    { intros i j B IB I J N E. assert (X : glued p i j) by (apply (glued_batch p B); auto).
      apply (glued_trans p i j i); auto. apply glued_sym, X. }
    intros i I. simpl in I.
    do 8 (destruct i as [|i]; [first
      [ apply (Pair 0 1 [0; 1; 4; 5])%nat; simpl; auto; fail | apply (Pair 1 0 [0; 1; 4; 5])%nat; simpl; auto; fail
      | apply (Pair 2 3 [2; 3; 6; 7])%nat; simpl; auto; fail | apply (Pair 3 2 [2; 3; 6; 7])%nat; simpl; auto; fail
      | apply (Pair 4 5 [0; 1; 4; 5])%nat; simpl; auto 6; fail | apply (Pair 5 4 [0; 1; 4; 5])%nat; simpl; auto 6; fail
      | apply (Pair 6 7 [2; 3; 6; 7])%nat; simpl; auto 6; fail | apply (Pair 7 6 [2; 3; 6; 7])%nat; simpl; auto 6; fail ]|]).
    lia.
  - apply minimisers_attain; [auto | simpl; lia |]. split; [apply placed_feasible|]. attains.
  - apply not_frame with 0%nat 2%nat; simpl; try lia. rewrite gram_placed. unfold frame_gram. simpl. lra.
Qed.

(** 7. A sample without a second of its class has no forced norm, though it meets the other class: it may vanish. *)
Theorem singleton_norm :
  exists p H, well_formed p /\ (k p < d p)%nat /\ meeting p /\ minimiser p H /\ gram (d p) H 2 2 = 0.
Proof.
  set (p := Problem 3 2 3 halves [[0; 1; 2]%nat] (SCL 1)).
  assert (W : well_formed p).
  { constructor; simpl.
    - intros i I. unfold halves. destruct (_ <? _)%nat; lia.
    - intros B IB. cases_in IB; distinct.
    - intros B i IB I. cases_in IB; cases_in I; lia.
    - apply SCL_valid. }
  exists p, (axes (fun i => nth i [0; 0; 3]%nat 3%nat)). split; [auto|]. split; [simpl; lia|]. split; [|split].
  - intros i l I J N. simpl in I, J, N. unfold halves in N.
    assert (M : meet p 0 2).
    { exists [0; 1; 2]%nat. simpl. split; [auto|]. split; [auto|]. split; [auto|]. split; [discriminate|]. left. reflexivity. }
    destruct (Nat.ltb_spec i 2), (Nat.ltb_spec l 2); try tauto; [exists 0%nat, 2%nat | exists 2%nat, 0%nat];
      simpl; unfold halves; destruct (Nat.ltb_spec i 2), (Nat.ltb_spec l 2); try lia; repeat split; auto using meet_sym.
  - apply minimisers_attain; [auto | simpl; lia |]. split; [apply placed_feasible|]. attains.
  - rewrite gram_placed. reflexivity.
Qed.

(** 8. A batch of one class makes its cosines equal, not 1: three orthogonal vectors of one class attain the bound. *)
Theorem single_class_batch :
  exists p H, well_formed p /\ minimiser p H /\ (exists B, In B (family p) /\ In 0%nat B /\ In 1%nat B) /\
    y p 0 = y p 1 /\ gram (d p) H 0 1 = 0.
Proof.
  set (p := Problem 3 1 3 (fun _ => 0%nat) [[0; 1; 2]%nat] (SCL 1)).
  assert (W : well_formed p).
  { constructor; simpl.
    - intros; lia.
    - intros B IB. cases_in IB; distinct.
    - intros B i IB I. cases_in IB; cases_in I; lia.
    - apply SCL_valid. }
  exists p, (axes (fun i => i)). split; [auto|]. split; [|split; [|split]].
  - apply minimisers_attain; [auto | simpl; lia |]. split; [apply placed_feasible|].
    apply equality; [auto | apply placed_feasible |]. intros B i IB I; cases_in IB; cases_in I;
      (split; [intros M; exfalso; vm_compute in M; destruct M as [M|[]]; apply M; reflexivity
              | simpl; intros j j' J J'; cases_in J; cases_in J'; rewrite ?gram_placed; reflexivity]).
  - exists [0; 1; 2]%nat. simpl. auto.
  - reflexivity.
  - rewrite gram_placed. reflexivity.
Qed.

(** 9. Signs flipped: minus a Laplacian is not PSD; *)
Theorem flipped_laplacian :
  exists l A, NoDup l /\ symmetric A /\ (forall i j, 0 <= A i j) /\ ~ PSD l (fun i j => - laplacian l A i j).
Proof.
  exists [0; 1]%nat, (fun i j => if (i =? j)%nat then 0 else 1). split; [distinct|]. split; [|split].
  - intros i j. rewrite Nat.eqb_sym. reflexivity.
  - intros i j. destruct (_ =? _)%nat; lra.
  - intros P. specialize (P (fun i => if (i =? 0)%nat then 1 else -1)). unfold inner, laplacian in P. simpl in P. lra.
Qed.

(** and a loss that adds the mean over positives is not minimised by the frame. *)
Definition flipped_scl (y : nat -> nat) (tau : R) (family : list (list nat)) (G : nat -> nat -> R) : R :=
  sum family (fun B => sum (filter (fun i => 2 <=? count y B (y i))%nat B) (fun i =>
    ln (sum (others B i) (fun l => exp (G i l / tau)))
    + / (INR (count y B (y i)) - 1) * sum (positives y B i) (fun j => G i j / tau))).

Theorem flipped_loss :
  exists p H F, well_formed p /\ feasible p H /\ feasible p F /\ is_frame p F /\
    flipped_scl (y p) 1 (family p) (gram (d p) H) < flipped_scl (y p) 1 (family p) (gram (d p) F).
Proof.
  set (p := four 2 [everyone]). assert (W : well_formed p) by apply everyone_wf.
  exists p, (axes (fun _ => 2%nat)), (axes halves).
  split; [auto|]. split; [apply placed_feasible|]. split; [apply placed_feasible|].
  split; [apply axes_frame; auto|].
  assert (Z0 : forall i j, gram 2 (axes (fun _ => 2%nat)) i j = 0) by (intros; rewrite gram_placed; reflexivity).
  unfold flipped_scl. simpl d. cbn -[gram IZR]. rewrite !Z0, !gram_placed. cbn -[IZR].
  replace (/ (1 + 1 - 1)) with 1 by lra. replace (0 / 1) with 0 by lra. replace (1 / 1) with 1 by lra. rewrite exp_0.
  pose proof (exp_ge 1).
  assert (ln (1 + (1 + (1 + 0))) <= ln (exp 1 + (1 + (1 + 0)))) by (apply ln_le; lra).
  assert (ln (1 + (1 + (1 + 0))) <= ln (1 + (1 + (exp 1 + 0)))) by (apply ln_le; lra).
  lra.
Qed.

(** 10. SupCon-in is not convex in G: at the middle of a segment its value is larger than the mean of those at the ends, so
    [tangent] and the duals leave it out. *)
Theorem supcon_in_not_convex :
  exists y B i (g g' : nat -> R), NoDup B /\ In i B /\ valid (SupConIn (fun _ _ => 1) (fun _ _ => 1)) /\
    let f := row (SupConIn (fun _ _ => 1) (fun _ _ => 1)) y B i in
    (f g + f g') / 2 < f (fun j => (g j + g' j) / 2).
Proof.
  exists (fun i => if (i <? 3)%nat then 0%nat else 1%nat), everyone, 0%nat,
    (fun j => if (j =? 1)%nat then 1 else if (j =? 2)%nat then -1 else 0),
    (fun j => if (j =? 1)%nat then -1 else if (j =? 2)%nat then 1 else 0).
  split; [distinct|]. split; [left; auto|]. split; [simpl; intros; lra|].
  cbv zeta. unfold row, mean. cbn -[IZR]. rewrite !Rmult_1_l.
  replace ((1 + -1) / 2 / 1) with 0 by lra. replace ((-1 + 1) / 2 / 1) with 0 by lra.
  replace ((0 + 0) / 2 / 1) with 0 by lra. replace (0 / 1) with 0 by lra. replace (1 / 1) with 1 by lra.
  replace (-1 / 1) with (-1) by lra. rewrite exp_0.
  set (u := exp 1). set (v := exp (-1)).
  assert (Hu : 2 < u) by (unfold u; pose proof (exp_ineq1 1); lra).
  assert (Hv : 0 < v) by apply exp_pos.
  replace (v + (u + 0) + (1 + 0)) with (u + (v + 0) + (1 + 0)) by ring.
  replace (v + (u + 0)) with (u + (v + 0)) by ring.
  assert (X : ln (u + (v + 0) + (1 + 0)) - ln ((u + (v + 0)) / (1 + 1)) < ln (1 + (1 + 0) + (1 + 0)) - ln ((1 + (1 + 0)) / (1 + 1))).
  { rewrite <- !ln_div by lra. apply ln_increasing; [apply Rdiv_lt_0_compat; lra|].
    apply Rmult_lt_reg_r with ((u + (v + 0)) / (1 + 1)); [lra|].
    replace ((u + (v + 0) + (1 + 0)) / ((u + (v + 0)) / (1 + 1)) * ((u + (v + 0)) / (1 + 1)))
      with (u + (v + 0) + (1 + 0)) by (field; lra). lra. }
  lra.
Qed.
