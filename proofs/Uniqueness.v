(** Chapter 3: what a family of batches forces, and when the orthogonal frame is the only minimiser. *)

From Coq Require Import Reals Lra Lia List Arith Bool Classical_Prop.
From UFM Require Import Sums Model Rows Bound.
Import ListNotations.
Open Scope R_scope.

(** ** The effective interaction graph (theory, 3.2 and 3.3) *)

(** A batch that holds two classes. *)
Definition mixed (y : nat -> nat) (B : list nat) : Prop :=
  exists i l, In i B /\ In l B /\ y i <> y l.

(** The sigmoid loss pulls positives to 1 in batches of one class too. *)
Definition pulls_alone (L : loss) : Prop := match L with Sigmoid _ _ _ _ => True | _ => False end.

(** With the positives in the denominator a batch of one class makes its cosines equal. *)
Definition equal_values (L : loss) : Prop := match L with LogSumExp _ _ _ true => True | _ => False end.

(** Samples that every minimiser keeps at one unit vector. [glued p i i] says that i has norm 1. *)
Inductive glued (p : problem) : nat -> nat -> Prop :=
  | glued_batch B i j :
      In B (family p) -> In i B -> In j B -> i <> j -> y p i = y p j ->
      mixed (y p) B \/ pulls_alone (L p) -> glued p i j
  | glued_open B i j i' j' :
      In B (family p) -> equal_values (L p) -> ~ mixed (y p) B ->
      In i B -> In j B -> i <> j -> In i' B -> In j' B -> i' <> j' -> glued p i j -> glued p i' j'
  | glued_sym i j : glued p i j -> glued p j i
  | glued_trans i j m : glued p i j -> glued p j m -> glued p i m.

(** Samples of two classes that a batch makes orthogonal: one of the two classes is active in it. *)
Definition meet (p : problem) (i l : nat) : Prop :=
  exists B, In B (family p) /\ In i B /\ In l B /\ y p i <> y p l /\
    (acts (L p) (y p) B (y p i) = true \/ acts (L p) (y p) B (y p l) = true).

(** Every class is one component, and none of a lone sample. *)
Definition connected (p : problem) : Prop :=
  forall i j, (i < n p)%nat -> (j < n p)%nat -> y p i = y p j -> glued p i j.

(** Every two classes that have samples meet somewhere. *)
Definition meeting (p : problem) : Prop :=
  forall i l, (i < n p)%nat -> (l < n p)%nat -> y p i <> y p l ->
    exists i' l', y p i' = y p i /\ y p l' = y p l /\ meet p i' l'.

(** No batch of one class is left open: three samples of it and no glued pair. *)
Definition settled (p : problem) : Prop :=
  equal_values (L p) -> forall B i j m, In B (family p) -> ~ mixed (y p) B ->
    In i B -> In j B -> In m B -> i <> j -> i <> m -> j <> m ->
    exists a b, In a B /\ In b B /\ a <> b /\ glued p a b.

Lemma not_mixed y B i j : ~ mixed y B -> In i B -> In j B -> y i = y j.
Proof.
  intros N I J. destruct (Nat.eq_dec (y i) (y j)); auto. destruct N. exists i, j. auto.
Qed.

Lemma mixed_negatives y B i : mixed y B -> negatives y B i <> [].
Proof.
  intros (a & b & A & C & N) E.
  destruct (Nat.eq_dec (y a) (y i)) as [Ea|Na].
  - assert (X : In b (negatives y B i)) by (apply in_negatives; split; congruence). rewrite E in X. destruct X.
  - assert (X : In a (negatives y B i)) by (apply in_negatives; auto). rewrite E in X. destruct X.
Qed.

Lemma negatives_mixed y B i : In i B -> negatives y B i <> [] -> mixed y B.
Proof.
  intros I N. destruct (negatives y B i) as [|l ?] eqn:E; [tauto|].
  assert (X : In l (negatives y B i)) by (rewrite E; left; auto). apply in_negatives in X.
  exists i, l. intuition.
Qed.

Lemma meet_sym p i l : meet p i l -> meet p l i.
Proof. intros (B & ? & ? & ? & ? & ?). exists B. intuition. Qed.

Section Forced.
Variable p : problem.
Hypothesis W : well_formed p.

Lemma glued_class i j : glued p i j -> y p i = y p j /\ (i < n p)%nat /\ (j < n p)%nat.
Proof.
  intros G. pose proof (batches_below p W) as LB.
  induction G as [B i j IB I J N E M | B i j i' j' IB Q M I J N I' J' N' G IH | | ].
  - split; [auto | split; apply (LB B); auto].
  - split; [apply (not_mixed _ _ _ _ M); auto | split; apply (LB B); auto].
  - intuition.
  - intuition congruence.
Qed.

(** An anchor with a positive acts, in a mixed batch whatever the loss. *)
Lemma acts_mixed B i j :
  In B (family p) -> In i B -> In j B -> i <> j -> y p j = y p i ->
  mixed (y p) B \/ pulls_alone (L p) \/ equal_values (L p) -> acts (L p) (y p) B (y p i) = true.
Proof.
  intros IB I J N E M. pose proof (batches_distinct p W B IB) as D.
  pose proof (two_of_class (y p) B i j D I J N E) as T. apply Nat.leb_le in T.
  unfold acts. destruct (L p) as [w a tau alpha | w s b ev | w tau]; rewrite T; auto using orb_true_r.
  destruct alpha; auto. simpl. destruct M as [M|[[]|[]]].
  apply Nat.ltb_lt, negatives_some, mixed_negatives, M.
Qed.

Section Attaining.
Variable H : nat -> nat -> R.
Hypothesis F : feasible p H.
Hypothesis E : objective p H = loss_bound p.

Let G := gram (d p) H.

Lemma all_tight B i : In B (family p) -> In i B -> acts (L p) (y p) B (y p i) = true -> tight (L p) (y p) B i (G i).
Proof. intros IB I A. apply (proj1 (equality p W H F) E); auto. apply in_anchors; auto. Qed.

Lemma norm_le_1 i : (i < n p)%nat -> G i i <= 1.
Proof. intros I. apply F, I. Qed.

(** Statement (c): in a mixed batch positives are at 1. *)
Theorem glued_forced i j : glued p i j -> G i j = 1.
Proof.
  intros X. induction X as [B i j IB I J N Ey M | B i j i' j' IB Q M I J N I' J' N' X IH | i j X IH | i j m X IH X' IH'].
  - destruct (all_tight B i IB I) as [T _].
    { apply (acts_mixed B i j); auto. tauto. }
    apply T; [|apply in_positives; auto].
    destruct M as [M|M]; [left; apply mixed_negatives, M | right]. unfold pulls_alone in M. destruct (L p); auto.
  - assert (V : forall i j j', In i B -> In j B -> In j' B -> j <> i -> j' <> i -> G i j = G i j').
    { intros a b b' Ia Ib Ib' Nb Nb'. destruct (all_tight B a IB Ia) as [_ T].
      - apply (acts_mixed B a b); auto. apply (not_mixed _ _ _ _ M); auto.
      - unfold equal_values in Q. destruct (L p) as [w m tau alpha | |]; [|destruct Q|destruct Q].
        destruct alpha; [|destruct Q].
        apply T; apply in_positives; split; auto; split; auto; apply (not_mixed _ _ _ _ M); auto. }
    destruct (Nat.eq_dec i i') as [->|Ni].
    + rewrite <- IH. apply V; auto.
    + rewrite (V i' j' i) by auto. unfold G. rewrite gram_sym. fold G. rewrite (V i i' j) by auto. exact IH.
  - unfold G. rewrite gram_sym. exact IH.
  - pose proof (glued_class i j X) as (_ & I & J).
    destruct (gram_1_equal (d p) H i j) as (_ & _ & R); auto using norm_le_1.
    unfold G. rewrite (gram_equal_rows _ _ _ _ _ R). exact IH'.
Qed.

(** Statement (c): and pairs that meet are at 0. *)
Theorem meet_forced i l : meet p i l -> G i l = 0.
Proof.
  assert (X : forall i l B, In B (family p) -> In i B -> In l B -> y p i <> y p l ->
    acts (L p) (y p) B (y p i) = true -> G i l = 0).
  { intros i0 l0 B IB I J N A. destruct (all_tight B i0 IB I A) as [T _].
    assert (In l0 (negatives (y p) B i0)) as X by (apply in_negatives; auto).
    apply T; auto. left. intros Z. rewrite Z in X. destruct X. }
  intros (B & IB & I & J & N & [A|A]); [apply (X i l B); auto|].
  unfold G. rewrite gram_sym. apply (X l i B); auto.
Qed.

(** Statement (c): in a batch of one class all cosines are one number (log-sum-exp with alpha = 1). *)
Theorem equal_forced B i j i' j' :
  equal_values (L p) -> In B (family p) -> ~ mixed (y p) B ->
  In i B -> In j B -> i <> j -> In i' B -> In j' B -> i' <> j' -> G i j = G i' j'.
Proof.
  intros Q IB M.
  assert (V : forall i j j', In i B -> In j B -> In j' B -> j <> i -> j' <> i -> G i j = G i j').
  { intros a b b' Ia Ib Ib' Nb Nb'. destruct (all_tight B a IB Ia) as [_ T].
    - apply (acts_mixed B a b); auto. apply (not_mixed _ _ _ _ M); auto.
    - unfold equal_values in Q. destruct (L p) as [w m tau alpha | |]; [|destruct Q|destruct Q].
      destruct alpha; [|destruct Q].
      apply T; apply in_positives; split; auto; split; auto; apply (not_mixed _ _ _ _ M); auto. }
  intros I J N I' J' N'. destruct (Nat.eq_dec i i') as [->|Ni]; [apply V; auto|].
  rewrite (V i j i') by auto. unfold G. rewrite gram_sym. fold G. apply V; auto.
Qed.

(** Statement (d): connected classes that meet leave the orthogonal frame only (theory, 3.6). *)
Theorem attaining_is_frame : connected p -> meeting p -> is_frame p H.
Proof.
  intros C M i j I J. unfold frame_gram. destruct (Nat.eqb_spec (y p i) (y p j)) as [Ey|N].
  - apply glued_forced, C; auto.
  - destruct (M i j I J N) as (i' & j' & Ei & Ej & X).
    assert (B : (i' < n p)%nat /\ (j' < n p)%nat).
    { destruct X as (B & IB & I' & J' & _). split; apply (batches_below p W B); auto. }
    assert (Gi : glued p i i') by (apply C; intuition).
    assert (Gj : glued p j j') by (apply C; intuition).
    pose proof (glued_class _ _ Gi) as (_ & ? & ?). pose proof (glued_class _ _ Gj) as (_ & ? & ?).
    destruct (gram_1_equal (d p) H i i') as (_ & _ & Ri); auto using norm_le_1, (glued_forced _ _ Gi).
    destruct (gram_1_equal (d p) H j j') as (_ & _ & Rj); auto using norm_le_1, (glued_forced _ _ Gj).
    rewrite (gram_equal_rows _ _ _ _ _ Ri), gram_sym, (gram_equal_rows _ _ _ _ _ Rj), gram_sym.
    apply meet_forced, X.
Qed.
End Attaining.

(** Neural collapse in so many words: one unit vector a class, those of two classes orthogonal. *)
Theorem frame_collapses H : feasible p H -> is_frame p H ->
  (forall i, (i < n p)%nat -> gram (d p) H i i = 1) /\
  (forall i j, (i < n p)%nat -> (j < n p)%nat -> y p i = y p j -> forall r, (r < d p)%nat -> H i r = H j r) /\
  (forall i l, (i < n p)%nat -> (l < n p)%nat -> y p i <> y p l -> gram (d p) H i l = 0).
Proof.
  intros F Fr.
  assert (One : forall i j, (i < n p)%nat -> (j < n p)%nat -> y p i = y p j -> gram (d p) H i j = 1).
  { intros i j I J E. rewrite Fr by auto. unfold frame_gram. rewrite E, Nat.eqb_refl. reflexivity. }
  split; [|split].
  - intros i I. apply One; auto.
  - intros i j I J E. apply (gram_1_equal (d p) H i j); auto; apply F; auto.
  - intros i l I J N. rewrite Fr by auto. unfold frame_gram. destruct (Nat.eqb_spec (y p i) (y p l)); tauto.
Qed.

(** Statement (d). *)
Theorem unique H :
  (k p <= d p)%nat -> connected p -> meeting p -> (minimiser p H <-> feasible p H /\ is_frame p H).
Proof.
  intros D C M. rewrite (minimisers_attain p W H D). split; intros [F E]; split; auto.
  - apply attaining_is_frame; auto.
  - apply frame_attains; auto.
Qed.

(** ** The other direction: other minimisers, on coordinate axes *)

(** Sample i on axis [col i], or at 0 if that is d or beyond. *)
Lemma gram_placed D col i j :
  gram D (axes col) i j = if ((col i =? col j)%nat && (col i <? D)%nat) then 1 else 0.
Proof.
  destruct (Nat.ltb_spec (col i) D) as [Lt|Ge].
  - rewrite gram_axes by auto. rewrite andb_true_r. reflexivity.
  - rewrite andb_false_r. apply sum_zero. intros r I. apply in_seq in I. unfold axes.
    destruct (Nat.eqb_spec r (col i)); [lia | ring].
Qed.

Lemma placed_feasible col : feasible p (axes col).
Proof.
  intros i I. split.
  - intros r _. unfold axes. destruct (_ =? _)%nat; lra.
  - rewrite gram_placed. destruct (_ && _); lra.
Qed.

Lemma placed_attains col :
  (forall i j, glued p i j -> col i = col j /\ (col i < d p)%nat) ->
  (forall i l, meet p i l -> col i <> col l \/ (d p <= col i)%nat) ->
  (equal_values (L p) -> forall B i j m, In B (family p) -> ~ mixed (y p) B -> In i B -> In j B -> In m B ->
     i <> j -> i <> m -> j <> m -> glued p i j /\ glued p i m) ->
  objective p (axes col) = loss_bound p.
Proof.
  intros Gl Me Op. apply equality; auto using placed_feasible.
  intros B i IB I. apply in_anchors in I. destruct I as [I A].
  assert (One : forall i j, glued p i j -> gram (d p) (axes col) i j = 1).
  { intros a b X. destruct (Gl a b X) as [E Lt]. rewrite gram_placed, E, Nat.eqb_refl.
    rewrite <- E. apply Nat.ltb_lt in Lt. rewrite Lt. reflexivity. }
  split.
  - intros M. split.
    + intros j J. apply in_positives in J. apply One, glued_batch with B; intuition.
      left. apply (negatives_mixed _ _ i); auto.
    + intros l J. apply in_negatives in J. rewrite gram_placed.
      destruct (Me i l) as [N|N].
      * exists B. intuition.
      * destruct (Nat.eqb_spec (col i) (col l)); [tauto | reflexivity].
      * destruct (Nat.ltb_spec (col i) (d p)); [lia|]. rewrite andb_false_r. reflexivity.
  - destruct (L p) as [w a tau alpha | |] eqn:EL; auto. destruct alpha; auto.
    intros j j' J J'. apply in_positives in J, J'. destruct (Nat.eq_dec j j') as [->|N]; auto.
    destruct (classic (mixed (y p) B)) as [M|M].
    + rewrite !One; auto; apply glued_batch with B; intuition.
    + destruct (Op Logic.I B i j j') as [X X']; intuition. rewrite !One; auto.
Qed.

(** A settled batch of one class with three samples is glued. *)
Lemma settled_glued : settled p -> equal_values (L p) -> forall B i j m,
  In B (family p) -> ~ mixed (y p) B -> In i B -> In j B -> In m B -> i <> j -> i <> m -> j <> m ->
  glued p i j /\ glued p i m.
Proof.
  intros S Q B i j m IB M I J Im N N' N''.
  destruct (S Q B i j m IB M I J Im N N' N'') as (a & b & A & C & Nab & X).
  split; apply (glued_open p B a b); auto.
Qed.

(** Statement (e): two classes that never meet may share an axis (theory, 3.4). *)
Theorem apart_not_unique i l :
  (k p <= d p)%nat -> (i < n p)%nat -> (l < n p)%nat -> y p i <> y p l ->
  (forall i' l', y p i' = y p i -> y p l' = y p l -> ~ meet p i' l') ->
  exists H, minimiser p H /\ gram (d p) H i l = 1.
Proof.
  intros D I J N A. set (col := fun m => if (y p m =? y p l)%nat then y p i else y p m).
  assert (Lt : forall m, (m < n p)%nat -> (col m < d p)%nat).
  { intros m Lm. unfold col. pose proof (labels_below p W m Lm). pose proof (labels_below p W i I).
    destruct (_ =? _)%nat; lia. }
  exists (axes col). split.
  - apply minimisers_attain; auto. split; auto using placed_feasible.
    apply equality; auto using placed_feasible. intros B a IB Ia. apply in_anchors in Ia. destruct Ia as [Ia Act].
    assert (One : forall b, y p b = y p a -> gram (d p) (axes col) a b = 1).
    { intros b E. rewrite gram_axes by (apply Lt, (batches_below p W B); auto).
      unfold col. rewrite E, Nat.eqb_refl. reflexivity. }
    split.
    + intros _. split; [intros b X; apply in_positives in X; apply One; tauto|].
      intros b X. apply in_negatives in X. rewrite gram_axes by (apply Lt, (batches_below p W B); auto).
      assert (Mab : meet p a b) by (exists B; intuition).
      unfold col. destruct (Nat.eqb_spec (y p a) (y p l)), (Nat.eqb_spec (y p b) (y p l)).
      * intuition congruence.
      * destruct (Nat.eqb_spec (y p i) (y p b)); auto. destruct (A b a); auto. apply meet_sym; auto.
      * destruct (Nat.eqb_spec (y p a) (y p i)); auto. destruct (A a b); auto.
      * destruct (Nat.eqb_spec (y p a) (y p b)); auto. intuition congruence.
    + destruct (L p); auto. destruct alpha; auto. intros b b' X X'. apply in_positives in X, X'.
      rewrite !One; tauto.
  - rewrite gram_axes by auto. unfold col. rewrite Nat.eqb_refl.
    destruct (Nat.eqb_spec (y p i) (y p l)); [tauto|]. rewrite Nat.eqb_refl. reflexivity.
Qed.

(** Statement (e): a sample that is glued to nothing may vanish (theory, 3.5). *)
Theorem lone_not_unique i :
  (k p <= d p)%nat -> settled p -> (i < n p)%nat -> ~ glued p i i ->
  exists H, minimiser p H /\ gram (d p) H i i = 0.
Proof.
  intros D S I N. set (col := fun m => if (m =? i)%nat then d p else y p m).
  assert (Ni : forall j, ~ glued p i j).
  { intros j X. apply N, (glued_trans p i j i); auto. apply glued_sym, X. }
  exists (axes col). split.
  - apply minimisers_attain; auto. split; auto using placed_feasible. apply placed_attains.
    + intros a b X. pose proof (glued_class a b X) as (E & La & Lb). pose proof (labels_below p W a La).
      unfold col. destruct (Nat.eqb_spec a i) as [->|]; [destruct (Ni b X)|].
      destruct (Nat.eqb_spec b i) as [->|]; [destruct (Ni a (glued_sym _ _ _ X))|]. split; auto. lia.
    + intros a b (B & IB & A & C & Nab & _). unfold col.
      pose proof (labels_below p W a (batches_below p W B a IB A)).
      pose proof (labels_below p W b (batches_below p W B b IB C)).
      destruct (Nat.eqb_spec a i); [right; lia|]. destruct (Nat.eqb_spec b i); left; auto. lia.
    + apply settled_glued, S.
  - rewrite gram_placed. unfold col. rewrite !Nat.eqb_refl. rewrite Nat.ltb_irrefl. reflexivity.
Qed.

Lemma decided_below (P : nat -> Prop) m : exists b : nat -> bool, forall i, (i < m)%nat -> (b i = true <-> P i).
Proof.
  induction m as [|m [b IH]]; [exists (fun _ => true); intros; lia|].
  destruct (classic (P m)) as [Pm|Nm].
  - exists (fun i => (i =? m)%nat || b i). intros i Lt. destruct (Nat.eqb_spec i m) as [->|N]; simpl; [tauto|].
    apply IH. lia.
  - exists (fun i => negb (i =? m)%nat && b i). intros i Lt. destruct (Nat.eqb_spec i m) as [->|N]; simpl.
    + split; [discriminate | tauto].
    + apply IH. lia.
Qed.

(** Statement (e): in R^(k+1) a component that is not all of its class may move to an axis of its own (theory, 3.7). *)
Theorem split_not_unique i j :
  (k p < d p)%nat -> settled p -> (forall m, (m < n p)%nat -> glued p m m) ->
  (i < n p)%nat -> (j < n p)%nat -> y p i = y p j -> ~ glued p i j ->
  exists H, minimiser p H /\ gram (d p) H i j = 0.
Proof.
  intros D S Unit I J E N. destruct (decided_below (glued p i) (n p)) as [b Hb].
  set (col := fun m => if b m then k p else y p m). exists (axes col). split.
  - apply minimisers_attain; auto; [lia|]. split; auto using placed_feasible. apply placed_attains.
    + intros a c X. pose proof (glued_class a c X) as (Eac & La & Lc). pose proof (labels_below p W a La).
      assert (Same : b a = b c).
      { apply Bool.eq_iff_eq_true. rewrite (Hb a La), (Hb c Lc). split; intros Y.
        - apply (glued_trans p i a c); auto.
        - apply (glued_trans p i c a); auto. apply glued_sym, X. }
      unfold col. rewrite Same, Eac in *. destruct (b c); split; auto; lia.
    + intros a c (B & IB & A & C & Nac & _). left.
      pose proof (batches_below p W B a IB A) as La. pose proof (batches_below p W B c IB C) as Lc.
      pose proof (labels_below p W a La). pose proof (labels_below p W c Lc). unfold col.
      destruct (b a) eqn:Ba, (b c) eqn:Bc; auto; try lia.
      apply (Hb a La) in Ba. apply (Hb c Lc) in Bc. apply glued_class in Ba. apply glued_class in Bc.
      intuition congruence.
    + apply settled_glued, S.
  - rewrite gram_placed. unfold col.
    assert (Bi : b i = true) by (apply Hb; auto).
    assert (Bj : b j = false) by (apply not_true_iff_false; rewrite Hb; auto).
    rewrite Bi, Bj. pose proof (labels_below p W j J).
    destruct (Nat.eqb_spec (k p) (y p j)); [lia | reflexivity].
Qed.

(** Statements (d) and (e) together (theory, 3.12 (a)): for d >= k + 1 the frame is the only minimiser exactly if every class
    is one component and every two classes meet. *)
Theorem unique_iff :
  (k p < d p)%nat -> settled p ->
  ((forall H, minimiser p H -> is_frame p H) <-> connected p /\ meeting p).
Proof.
  intros D S. split.
  - intros U.
    assert (Unit : forall m, (m < n p)%nat -> glued p m m).
    { intros m Lm. apply NNPP. intros N. destruct (lone_not_unique m) as (H & M & E); auto; [lia|].
      apply U in M. rewrite M in E by auto. unfold frame_gram in E. rewrite Nat.eqb_refl in E. lra. }
    split.
    + intros i j I J E. apply NNPP. intros N.
      destruct (split_not_unique i j D S Unit I J E N) as (H & M & Z).
      apply U in M. rewrite M in Z by auto. unfold frame_gram in Z. rewrite E, Nat.eqb_refl in Z. lra.
    + intros i l I J N. apply NNPP. intros A.
      destruct (apart_not_unique i l) as (H & M & Z); auto; [lia| |].
      * intros i' l' Ei El X. apply A. exists i', l'. auto.
      * apply U in M. rewrite M in Z by auto. unfold frame_gram in Z.
        destruct (Nat.eqb_spec (y p i) (y p l)); [tauto | lra].
  - intros [C M] H X. apply (unique H); auto. lia.
Qed.
End Forced.
