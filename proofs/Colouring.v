(** Chapter 3, d = k: the frame is the only minimiser exactly if the classes are the only proper k-colouring. *)

From Coq Require Import Reals Lra Lia List Arith Bool Classical_Prop.
From UFM Require Import Sums Model Rows Bound Uniqueness.
Import ListNotations.
Open Scope R_scope.

(** A colouring of samples with k colours that is constant on glued samples and separates those that meet. *)
Definition proper (p : problem) (col : nat -> nat) : Prop :=
  (forall i, (i < n p)%nat -> (col i < k p)%nat) /\
  (forall i j, glued p i j -> col i = col j) /\
  (forall i l, meet p i l -> col i <> col l).

(** The classes are the only proper colouring, up to names of colours. *)
Definition only_colouring (p : problem) : Prop :=
  forall col, proper p col ->
    forall i j, (i < n p)%nat -> (j < n p)%nat -> (col i = col j <-> y p i = y p j).

Definition no_empty_class (p : problem) : Prop := forall c, (c < k p)%nat -> exists i, (i < n p)%nat /\ y p i = c.

Lemma finite_choice (P : nat -> nat -> Prop) m :
  (forall c, (c < m)%nat -> exists i, P c i) -> exists f : nat -> nat, forall c, (c < m)%nat -> P c (f c).
Proof.
  induction m as [|m IH]; intros E; [exists (fun c => c); intros; lia|].
  destruct IH as [f Hf]; [intros; apply E; lia|]. destruct (E m) as [i Hi]; [lia|].
  exists (fun c => if (c =? m)%nat then i else f c). intros c Lt.
  destruct (Nat.eqb_spec c m) as [->|]; auto. apply Hf. lia.
Qed.

Lemma find_ext {A} (f g : A -> bool) l : (forall a, In a l -> f a = g a) -> find f l = find g l.
Proof.
  induction l as [|a l IH]; simpl; intros E; auto. rewrite (E a), IH; auto.
Qed.

Lemma NoDup_map_in {A B} (f : A -> B) l :
  (forall a a', In a l -> In a' l -> f a = f a' -> a = a') -> NoDup l -> NoDup (map f l).
Proof.
  induction l as [|a l IH]; simpl; intros Inj D; [constructor|]. inversion D; subst. constructor.
  - intros X. apply in_map_iff in X. destruct X as (a' & E & I). rewrite (Inj a' a) in I; auto.
  - apply IH; auto.
Qed.

Section Colouring.
Variable p : problem.
Hypothesis W : well_formed p.

Section Attaining.
Hypothesis D : d p = k p.
Hypothesis Units : forall i, (i < n p)%nat -> glued p i i.
Hypothesis Full : no_empty_class p.
Hypothesis Only : only_colouring p.
Variable H : nat -> nat -> R.
Hypothesis F : feasible p H.
Hypothesis E : objective p H = loss_bound p.

Let G := gram (d p) H.

Lemma norm_1 i : (i < n p)%nat -> G i i = 1.
Proof. intros I. apply glued_forced; auto. Qed.

Lemma glued_rows i j r : glued p i j -> (r < d p)%nat -> H i r = H j r.
Proof.
  intros X Lt. pose proof (glued_class p W i j X) as (_ & I & J).
  apply (gram_1_equal (d p) H i j); auto; [apply F; auto | apply F; auto | apply glued_forced; auto].
Qed.

(** Samples that meet have disjoint supports. *)
Lemma meet_supports i l r : meet p i l -> (r < d p)%nat -> 0 < H i r -> 0 < H l r -> False.
Proof.
  intros X Lt Pi Pl. pose proof (meet_forced p W H F E i l X) as Z.
  destruct X as (B & IB & I & J & _). apply (batches_below p W) in I; auto. apply (batches_below p W) in J; auto.
  assert (T : H i r * H l r = 0).
  { apply (sum_zero_each (seq 0 (d p)) (fun r => H i r * H l r)); auto; [|apply in_seq; lia].
    intros s S. apply in_seq in S. apply Rmult_le_pos; apply F; auto; lia. }
  pose proof (Rmult_lt_0_compat _ _ Pi Pl). lra.
Qed.

Lemma choice_proper col :
  (forall i, (i < n p)%nat -> (col i < d p)%nat /\ 0 < H i (col i)) ->
  (forall i j, glued p i j -> col i = col j) -> proper p col.
Proof.
  intros C Gl. split; [|split]; auto.
  - intros i I. rewrite <- D. apply C, I.
  - intros i l X Eq. pose proof X as (B & IB & I & J & _).
    apply (batches_below p W) in I; auto. apply (batches_below p W) in J; auto.
    destruct (C i I) as [Lt Pi], (C l J) as [_ Pl]. apply (meet_supports i l (col i)); auto. rewrite Eq; auto.
Qed.

(** The first coordinate in the support. *)
Definition first (i : nat) : nat :=
  match find (fun r => if Rlt_dec 0 (H i r) then true else false) (seq 0 (d p)) with Some r => r | None => 0%nat end.

Lemma first_in i : (i < n p)%nat -> (first i < d p)%nat /\ 0 < H i (first i).
Proof.
  intros I. unfold first.
  destruct (find _ _) as [r|] eqn:X.
  - apply find_some in X. destruct X as [X Y]. apply in_seq in X. destruct (Rlt_dec 0 (H i r)); [|discriminate].
    split; auto. lia.
  - exfalso. pose proof (norm_1 i I) as One. unfold G, gram in One. rewrite sum_zero in One; [lra|].
    intros r R. pose proof (find_none _ _ X r R) as N. cbv beta in N.
    destruct (Rlt_dec 0 (H i r)) as [|N']; [discriminate|]. apply in_seq in R.
    assert (0 <= H i r) by (apply F; auto; lia). replace (H i r) with 0 by lra. ring.
Qed.

Lemma first_glued i j : glued p i j -> first i = first j.
Proof.
  intros X. unfold first. rewrite (find_ext _ (fun r => if Rlt_dec 0 (H j r) then true else false)); auto.
  intros r R. apply in_seq in R. rewrite (glued_rows i j r X) by lia. reflexivity.
Qed.

Lemma first_proper : proper p first.
Proof. apply choice_proper; [apply first_in | apply first_glued]. Qed.

(** A second coordinate in a support would give another proper colouring, or one colour too many. *)
Lemma support_is_first i r : (i < n p)%nat -> (r < d p)%nat -> 0 < H i r -> r = first i.
Proof.
  intros I Lt Pr. destruct (Nat.eq_dec r (first i)) as [|Ne]; auto. exfalso.
  destruct (decided_below (glued p i) (n p)) as [b Hb].
  set (col := fun m => if ((m <? n p)%nat && b m)%bool then r else first m).
  assert (In_b : forall m, (m < n p)%nat -> ((m <? n p)%nat && b m)%bool = true <-> glued p i m).
  { intros m Lm. apply Nat.ltb_lt in Lm as Lm'. rewrite Lm'. apply Hb, Lm. }
  assert (Pc : proper p col).
  { apply choice_proper.
    - intros m Lm. unfold col. destruct ((m <? n p)%nat && b m)%bool eqn:X; [|apply first_in; auto].
      apply (In_b m Lm) in X. split; auto. rewrite <- (glued_rows i m r X Lt). exact Pr.
    - intros a c X. pose proof (glued_class p W a c X) as (_ & La & Lc).
      assert (Same : ((a <? n p)%nat && b a)%bool = ((c <? n p)%nat && b c)%bool).
      { apply Bool.eq_iff_eq_true. rewrite (In_b a La), (In_b c Lc). split; intros Y.
        - apply (glued_trans p i a c); auto.
        - apply (glued_trans p i c a); auto. apply glued_sym, X. }
      unfold col. rewrite Same, (first_glued a c X). reflexivity. }
  assert (Ci : col i = r).
  { unfold col. replace ((i <? n p)%nat && b i)%bool with true; auto. symmetry. apply In_b; auto. }
  assert (Cj : forall j, (j < n p)%nat -> ~ glued p i j -> col j = first j).
  { intros j Lj N. unfold col. destruct ((j <? n p)%nat && b j)%bool eqn:X; auto. apply (In_b j Lj) in X. tauto. }
  destruct (classic (exists j, (j < n p)%nat /\ y p j = y p i /\ ~ glued p i j)) as [(j & Lj & Ey & N)|All].
  - assert (X : col j = col i) by (apply (Only col Pc); auto).
    assert (Y : first j = first i) by (apply (Only first first_proper); auto).
    rewrite Ci, (Cj j Lj N), Y in X. auto.
  - destruct (finite_choice _ (k p) Full) as [rep Hrep].
    assert (ND : NoDup (r :: map (fun c => first (rep c)) (seq 0 (k p)))).
    { constructor.
      - intros X. apply in_map_iff in X. destruct X as (c & X & Ic). apply in_seq in Ic.
        destruct (Hrep c) as [Lc Ec]; [lia|].
        destruct (Nat.eq_dec (y p i) c) as [Eq|Nq].
        + apply Ne. rewrite <- X. apply (Only first first_proper); auto; congruence.
        + apply Nq. rewrite <- Ec. apply (Only col Pc); auto. rewrite Ci, Cj; auto.
          intros Gl. apply glued_class in Gl; auto. intuition congruence.
      - apply NoDup_map_in; [|apply seq_NoDup].
        intros c c' Ic Ic' Eq. apply in_seq in Ic, Ic'.
        destruct (Hrep c) as [Lc Ec]; [lia|]. destruct (Hrep c') as [Lc' Ec']; [lia|].
        rewrite <- Ec, <- Ec'. apply (Only first first_proper); auto. }
    assert (Inc : incl (r :: map (fun c => first (rep c)) (seq 0 (k p))) (seq 0 (k p))).
    { intros x [<-|X]; [apply in_seq; lia|]. apply in_map_iff in X. destruct X as (c & <- & Ic). apply in_seq in Ic.
      destruct (Hrep c) as [Lc _]; [lia|]. apply in_seq. pose proof (first_in (rep c) Lc). lia. }
    pose proof (NoDup_incl_length ND Inc) as Len. simpl in Len. rewrite map_length, !seq_length in Len. lia.
Qed.

Theorem attaining_is_frame_colouring : is_frame p H.
Proof.
  assert (Zero : forall i r, (i < n p)%nat -> (r < d p)%nat -> r <> first i -> H i r = 0).
  { intros i r I R N. assert (0 <= H i r) by (apply F; auto).
    destruct (Rlt_dec 0 (H i r)) as [P|]; [|lra]. elim N. apply support_is_first; auto. }
  assert (One : forall i j, (i < n p)%nat -> (j < n p)%nat -> G i j = H i (first i) * H j (first i)).
  { intros i j I J. unfold G, gram.
    rewrite (sum_ext _ _ (fun r => if (r =? first i)%nat then H i r * H j r else 0)).
    - apply (sum_delta (seq 0 (d p)) (first i) (fun r => H i r * H j r)); [apply seq_NoDup|].
      apply in_seq. pose proof (first_in i I). lia.
    - intros r R. apply in_seq in R. destruct (Nat.eqb_spec r (first i)); auto.
      rewrite Zero by (auto; lia). ring. }
  assert (Unit : forall i, (i < n p)%nat -> H i (first i) = 1).
  { intros i I. pose proof (norm_1 i I) as X. rewrite One in X by auto. destruct (first_in i I) as [_ P].
    set (h := H i (first i)) in *.
    assert (Q : (h - 1) * (h + 1) = 0) by (replace ((h - 1) * (h + 1)) with (h * h - 1) by ring; lra).
    apply Rmult_integral in Q. destruct Q; lra. }
  intros i j I J. fold G. rewrite One, Unit, Rmult_1_l by auto. unfold frame_gram.
  destruct (Nat.eqb_spec (y p i) (y p j)) as [Ey|Ny].
  - replace (first i) with (first j); auto. apply (Only first first_proper); auto.
  - apply Zero; auto; [apply first_in; auto|]. intros Eq. apply Ny. apply (Only first first_proper); auto.
Qed.
End Attaining.

(** Another proper colouring is another minimiser. *)
Theorem other_colouring col i j :
  (k p <= d p)%nat -> settled p -> (forall i, (i < n p)%nat -> glued p i i) -> proper p col ->
  (i < n p)%nat -> (j < n p)%nat -> ~ (col i = col j <-> y p i = y p j) ->
  exists H, minimiser p H /\ ~ is_frame p H.
Proof.
  intros Dk S Units (Below & Gl & Me) I J N. exists (axes col). split.
  - apply minimisers_attain; auto. split; [apply placed_feasible|]. apply placed_attains; auto.
    + intros a b X. pose proof (glued_class p W a b X) as (_ & La & _). split; auto. specialize (Below a La). lia.
    + apply settled_glued, S.
  - intros Fr. specialize (Fr i j I J). rewrite gram_axes in Fr by (specialize (Below i I); lia).
    unfold frame_gram in Fr. apply N.
    destruct (Nat.eqb_spec (col i) (col j)), (Nat.eqb_spec (y p i) (y p j)); try lra; tauto.
Qed.

(** Statement (d) for d = k (theory, 3.10 and 3.12 (b)). *)
Theorem unique_iff_colouring :
  d p = k p -> settled p -> no_empty_class p ->
  ((forall H, minimiser p H -> is_frame p H) <->
   (forall i, (i < n p)%nat -> glued p i i) /\ only_colouring p).
Proof.
  intros D S Full. split.
  - intros U. assert (Units : forall i, (i < n p)%nat -> glued p i i).
    { intros i I. apply NNPP. intros N. destruct (lone_not_unique p W i) as (H & M & Z); auto; [lia|].
      apply U in M. rewrite M in Z by auto. unfold frame_gram in Z. rewrite Nat.eqb_refl in Z. lra. }
    split; auto. intros col P i j I J. apply NNPP. intros N.
    destruct (other_colouring col i j) as (H & M & X); try lia; auto.
  - intros [Units Only] H M. apply (minimisers_attain p W) in M; [|lia]. destruct M as [F E].
    apply attaining_is_frame_colouring; auto.
Qed.

(** Theorem 1 (theory, 3.12): in the full batch, with two samples or more of each class, the minimisers are the collapsed frames. *)
Theorem full_batch H :
  family p = [seq 0 (n p)] -> (2 <= k p <= d p)%nat -> (forall c, (c < k p)%nat -> (2 <= count (y p) (seq 0 (n p)) c)%nat) ->
  (minimiser p H <-> feasible p H /\ is_frame p H).
Proof.
  intros Fam D Two. set (B := seq 0 (n p)).
  assert (IB : In B (family p)) by (rewrite Fam; left; auto).
  assert (Lt : forall i, In i B <-> (i < n p)%nat) by (intros i; unfold B; rewrite in_seq; lia).
  assert (other : forall i, (i < n p)%nat -> exists j, In j B /\ j <> i /\ y p j = y p i).
  { intros i I. assert (P : positives (y p) B i <> []).
    { apply positives_some; [apply seq_NoDup | apply Lt; auto | apply Two, (labels_below p W); auto]. }
    destruct (positives (y p) B i) as [|j ?] eqn:X; [tauto|]. exists j. apply in_positives. rewrite X. left; auto. }
  assert (some : forall c, (c < k p)%nat -> exists i, In i B /\ y p i = c).
  { intros c Lc. specialize (Two c Lc). unfold count in Two. fold B in Two.
    destruct (of_class (y p) B c) as [|i ?] eqn:X; [simpl in Two; lia|]. exists i. apply in_of_class. rewrite X. left; auto. }
  assert (M : mixed (y p) B).
  { destruct (some 0%nat) as (i & I & Ei); [lia|]. destruct (some 1%nat) as (l & J & El); [lia|].
    exists i, l. split; [auto | split; auto; congruence]. }
  assert (Gl : forall i j, (i < n p)%nat -> (j < n p)%nat -> i <> j -> y p i = y p j -> glued p i j).
  { intros i j I J N E. apply (glued_batch p B i j); auto; apply Lt; auto. }
  apply unique; auto; [lia| |].
  - intros i j I J E. destruct (Nat.eq_dec i j) as [<-|N]; [|apply Gl; auto].
    destruct (other i I) as (m & Im & Nm & Em). apply Lt in Im.
    apply (glued_trans p i m i); [|apply glued_sym]; apply Gl; auto.
  - intros i l I J N. exists i, l. split; [auto|]. split; [auto|]. exists B.
    destruct (other i I) as (m & Im & Nm & Em).
    split; [auto|]. split; [apply Lt; auto|]. split; [apply Lt; auto|]. split; [auto|]. left.
    apply (acts_mixed p W B i m); auto. apply Lt; auto.
Qed.
End Colouring.
