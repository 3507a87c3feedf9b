(** Chapter 4: positive semidefinite matrices, as the checker proves that they are. *)

From Coq Require Import Reals Lra Lia List Arith Bool.
From UFM Require Import Sums Model.
Import ListNotations.
Open Scope R_scope.

(** ** Quadratic forms on lists of indices *)

Definition inner (l : list nat) (S G : nat -> nat -> R) : R := sum l (fun i => sum l (fun j => S i j * G i j)).

Definition symmetric (S : nat -> nat -> R) : Prop := forall i j, S i j = S j i.

Definition PSD (l : list nat) (S : nat -> nat -> R) : Prop :=
  forall x : nat -> R, 0 <= inner l S (fun i j => x i * x j).

Lemma inner_ext l S S' G G' :
  (forall i j, In i l -> In j l -> S i j * G i j = S' i j * G' i j) -> inner l S G = inner l S' G'.
Proof. intros E. apply sum_ext. intros i I. apply sum_ext. auto. Qed.

Lemma inner_plus l S S' G : inner l (fun i j => S i j + S' i j) G = inner l S G + inner l S' G.
Proof.
  unfold inner. rewrite <- sum_plus. apply sum_ext. intros i _. rewrite <- sum_plus. apply sum_ext. intros; ring.
Qed.

Lemma inner_minus_r l S G G' : inner l S (fun i j => G i j - G' i j) = inner l S G - inner l S G'.
Proof.
  unfold inner. rewrite <- sum_minus. apply sum_ext. intros i _. rewrite <- sum_minus. apply sum_ext. intros; ring.
Qed.

Lemma inner_transpose l S G : inner l S G = inner l (fun i j => S j i) (fun i j => G j i).
Proof. unfold inner. rewrite sum_swap. reflexivity. Qed.

Lemma inner_nonneg l S G :
  (forall i j, In i l -> In j l -> 0 <= S i j * G i j) -> 0 <= inner l S G.
Proof. intros P. apply sum_nonneg. intros i I. apply sum_nonneg. auto. Qed.

Lemma inner_diagonal l v G : NoDup l -> inner l (fun i j => if (j =? i)%nat then v i else 0) G = sum l (fun i => v i * G i i).
Proof.
  intros D. apply sum_ext. intros i I.
  rewrite (sum_ext _ _ (fun j => if (j =? i)%nat then (fun j => v i * G i j) j else 0)).
  - apply sum_delta; auto.
  - intros j _. destruct (_ =? _)%nat; ring.
Qed.

(** PSD matrices have nonnegative inner product with Gram matrices. *)
Lemma psd_gram l S d H : PSD l S -> 0 <= inner l S (gram d H).
Proof.
  intros P. unfold inner, gram.
  replace (sum l (fun i => sum l (fun j => S i j * sum (seq 0 d) (fun r => H i r * H j r))))
    with (sum (seq 0 d) (fun r => inner l S (fun i j => H i r * H j r))).
  - apply sum_nonneg. intros r _. exact (P (fun i => H i r)).
  - unfold inner. rewrite sum_swap. apply sum_ext. intros i _.
    rewrite sum_swap. apply sum_ext. intros j _. rewrite <- sum_scal. reflexivity.
Qed.

(** The Laplacian of nonnegative weights is PSD. *)
Definition laplacian (l : list nat) (A : nat -> nat -> R) (i j : nat) : R :=
  (if (j =? i)%nat then sum l (A i) else 0) - A i j.

Lemma laplacian_form l A x : NoDup l -> symmetric A ->
  inner l (laplacian l A) (fun i j => x i * x j) = / 2 * inner l A (fun i j => (x i - x j) ^ 2).
Proof.
  intros D Sy. unfold laplacian.
  replace (inner l (fun i j => (if (j =? i)%nat then sum l (A i) else 0) - A i j) (fun i j => x i * x j))
    with (inner l (fun i j => if (j =? i)%nat then sum l (A i) else 0) (fun i j => x i * x j)
          - inner l A (fun i j => x i * x j)).
  2:{ unfold inner. rewrite <- sum_minus. apply sum_ext. intros i _. rewrite <- sum_minus. apply sum_ext. intros; ring. }
  rewrite inner_diagonal by auto.
  assert (Sq : inner l A (fun i j => (x i - x j) ^ 2)
    = inner l A (fun i _ => x i * x i) + inner l A (fun _ j => x j * x j) - 2 * inner l A (fun i j => x i * x j)).
  { unfold inner. rewrite <- sum_scal, <- sum_plus, <- sum_minus. apply sum_ext. intros i _.
    rewrite <- sum_scal, <- sum_plus, <- sum_minus. apply sum_ext. intros; ring. }
  assert (T : inner l A (fun _ j => x j * x j) = inner l A (fun i _ => x i * x i)).
  { rewrite inner_transpose. apply inner_ext. intros. rewrite (Sy j i). reflexivity. }
  assert (U : sum l (fun i => sum l (A i) * (x i * x i)) = inner l A (fun i _ => x i * x i)).
  { apply sum_ext. intros i _. rewrite sum_scal_r. reflexivity. }
  rewrite Sq, T, U. lra.
Qed.

Theorem laplacian_psd l A :
  NoDup l -> symmetric A -> (forall i j, 0 <= A i j) -> PSD l (laplacian l A).
Proof.
  intros D Sy P x. rewrite laplacian_form by auto.
  apply Rmult_le_pos; [lra|]. apply inner_nonneg. intros. apply Rmult_le_pos; auto using pow2_ge_0.
Qed.

(** ** PSD over orbits, and by elimination (the checker's rule; theory, 4.6) *)

(** A matrix constant on orbits is PSD over samples if it is PSD over orbits and v_a >= s_aa in orbits of two or more. *)
Theorem orbit_psd (l orbits : list nat) (o : nat -> nat) (s : nat -> nat -> R) (v : nat -> R) :
  NoDup l -> NoDup orbits -> (forall i, In i l -> In (o i) orbits) ->
  let size a := INR (count o l a) in
  (forall a, In a orbits -> (1 <= count o l a)%nat /\ ((2 <= count o l a)%nat -> s a a <= v a)) ->
  PSD orbits (fun a b => if (b =? a)%nat then (v a + (size a - 1) * s a a) / size a else s a b) ->
  PSD l (fun i j => if (j =? i)%nat then v (o i) else s (o i) (o j)).
Proof.
  intros Dl Do Io size Sz T x.
  set (X := fun a => sum (of_class o l a) x).
  assert (by_orbit : forall f, sum l f = sum orbits (fun a => sum (of_class o l a) f)).
  { intros f. unfold of_class.
    rewrite (sum_ext orbits _ (fun a => sum l (fun i => if (o i =? a)%nat then f i else 0))) by (intros; apply sum_filter).
    rewrite sum_swap. apply sum_ext. intros i I.
    rewrite (sum_ext _ _ (fun a => if (a =? o i)%nat then (fun _ => f i) a else 0)).
    - rewrite sum_delta; auto.
    - intros a _. rewrite (Nat.eqb_sym a). reflexivity. }
  assert (E : inner l (fun i j => if (j =? i)%nat then v (o i) else s (o i) (o j)) (fun i j => x i * x j)
    = inner orbits s (fun a b => X a * X b)
      + sum orbits (fun a => (v a - s a a) * sum (of_class o l a) (fun i => x i * x i))).
  { replace (inner l (fun i j => if (j =? i)%nat then v (o i) else s (o i) (o j)) (fun i j => x i * x j))
      with (inner l (fun i j => s (o i) (o j)) (fun i j => x i * x j)
            + inner l (fun i j => if (j =? i)%nat then v (o i) - s (o i) (o i) else 0) (fun i j => x i * x j)).
    2:{ rewrite <- inner_plus. apply inner_ext. intros i j _ _. destruct (Nat.eqb_spec j i) as [->|]; ring. }
    rewrite (inner_diagonal l (fun i => v (o i) - s (o i) (o i))) by auto. f_equal.
    - unfold inner. rewrite by_orbit. apply sum_ext. intros a _.
      transitivity (sum (of_class o l a) (fun i => x i * sum orbits (fun b => s a b * X b))).
      + apply sum_ext. intros i I. apply in_of_class in I. destruct I as [_ <-].
        rewrite by_orbit, <- sum_scal. apply sum_ext. intros b _. unfold X. rewrite <- !sum_scal.
        apply sum_ext. intros j J. apply in_of_class in J. destruct J as [_ <-]. ring.
      + rewrite sum_scal_r. fold (X a). rewrite <- sum_scal. apply sum_ext. intros; ring.
    - rewrite by_orbit. apply sum_ext. intros a _. rewrite <- sum_scal. apply sum_ext.
      intros i I. apply in_of_class in I. destruct I as [_ <-]. reflexivity. }
  assert (CS : forall a, In a orbits ->
    (v a - s a a) / size a * (X a * X a) <= (v a - s a a) * sum (of_class o l a) (fun i => x i * x i)).
  { intros a I. destruct (Sz a I) as [One Two].
    assert (Ps : 0 < size a) by (apply lt_0_INR; lia).
    assert (Q : sum (of_class o l a) (fun i => (x i - X a / size a) ^ 2)
                = sum (of_class o l a) (fun i => x i * x i) - X a * X a / size a).
    { rewrite (sum_ext _ _ (fun i => (x i * x i - 2 * (X a / size a) * x i) + (X a / size a) * (X a / size a)))
        by (intros; ring).
      rewrite sum_plus, sum_minus, sum_scal, sum_const. fold (X a). unfold size, count. field.
      unfold size, count in Ps. lra. }
    destruct (Nat.eq_dec (count o l a) 1) as [E1|N1].
    - (* an orbit of one sample: equality *)
      assert (Z : sum (of_class o l a) (fun i => x i * x i) = X a * X a / size a).
      { unfold size. rewrite E1. unfold count in E1. unfold X. destruct (of_class o l a) as [|i [|]]; try discriminate.
        simpl. field. }
      rewrite Z. right. field. lra.
    - assert (Hv : s a a <= v a) by (apply Two; lia).
      assert (Pq : 0 <= sum (of_class o l a) (fun i => (x i - X a / size a) ^ 2))
        by (apply sum_nonneg; intros; apply pow2_ge_0).
      replace ((v a - s a a) / size a * (X a * X a)) with ((v a - s a a) * (X a * X a / size a)) by (field; lra).
      apply Rmult_le_compat_l; lra. }
  apply sum_le in CS. rewrite E.
  pose proof (T X) as TX.
  replace (inner orbits (fun a b => if (b =? a)%nat then (v a + (size a - 1) * s a a) / size a else s a b)
             (fun a b => X a * X b))
    with (inner orbits s (fun a b => X a * X b) + sum orbits (fun a => (v a - s a a) / size a * (X a * X a))) in TX; [lra|].
  rewrite <- (inner_diagonal orbits (fun a => (v a - s a a) / size a) (fun a b => X a * X b)) by auto.
  rewrite <- inner_plus. apply inner_ext. intros a b Ia _.
  destruct (Nat.eqb_spec b a) as [->|]; [|ring].
  assert (Ps : 0 < size a) by (apply lt_0_INR; destruct (Sz a Ia); lia). field. lra.
Qed.

(** Elimination without pivoting meets positive pivots only. *)
Fixpoint positive_pivots (l : list nat) (T : nat -> nat -> R) : Prop :=
  match l with
  | [] => True
  | p :: l' => 0 < T p p /\ positive_pivots l' (fun a b => T a b - T a p / T p p * T b p)
  end.

Theorem elimination_psd l T : symmetric T -> positive_pivots l T -> PSD l T.
Proof.
  revert T. induction l as [|p l IH]; intros T Sy Pv x; [unfold inner; simpl; lra|].
  destruct Pv as [P Pv].
  assert (Sy' : symmetric (fun a b => T a b - T a p / T p p * T b p)) by (intros a b; rewrite (Sy a b); field; lra).
  pose proof (IH _ Sy' Pv x) as Q.
  unfold inner in *. simpl.
  set (u := sum l (fun j => T p j * x j)).
  assert (E1 : sum l (fun j => T p j * (x p * x j)) = x p * u).
  { unfold u. rewrite <- sum_scal. apply sum_ext. intros; ring. }
  assert (E2 : sum l (fun i => T i p * (x i * x p) + sum l (fun j => T i j * (x i * x j)))
    = x p * u + sum l (fun i => sum l (fun j => T i j * (x i * x j)))).
  { rewrite sum_plus. f_equal. unfold u. rewrite <- sum_scal. apply sum_ext. intros i _. rewrite (Sy i p). ring. }
  assert (E3 : sum l (fun i => sum l (fun j => (T i j - T i p / T p p * T j p) * (x i * x j)))
    = sum l (fun i => sum l (fun j => T i j * (x i * x j))) - u * u / T p p).
  { replace (u * u / T p p) with (sum l (fun i => T p i * x i * (u / T p p))).
    2:{ rewrite sum_scal_r. fold u. field. lra. }
    rewrite <- sum_minus. apply sum_ext. intros i _.
    replace (T p i * x i * (u / T p p)) with (sum l (fun j => T i p / T p p * T j p * (x i * x j))).
    - rewrite <- sum_minus. apply sum_ext. intros; ring.
    - unfold u. transitivity (T p i * x i / T p p * sum l (fun j => T p j * x j)); [|field; lra].
      rewrite <- sum_scal. apply sum_ext. intros j _. rewrite (Sy i p), (Sy j p). field. lra. }
  rewrite E1, E2. rewrite E3 in Q.
  assert (Sqr : 0 <= T p p * (x p + u / T p p) ^ 2).
  { apply Rmult_le_pos; [lra | apply pow2_ge_0]. }
  replace (T p p * (x p + u / T p p) ^ 2) with (T p p * (x p * x p) + 2 * (x p * u) + u * u / T p p) in Sqr by (field; lra).
  lra.
Qed.
