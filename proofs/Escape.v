(** Theory, 5.7: one coordinate that no sample uses leaves no spurious local minimum.
    No second derivative is taken: the loss lies above its tangent at the lifted point, whose slopes depend
    continuously on the lift. *)

From Coq Require Import Reals Lra Lia List Arith Bool FunctionalExtensionality.
From UFM Require Import Sums Anchor OtherLosses Model Rows Bound Psd Duality.
Import ListNotations.
Open Scope R_scope.

(** The labels that occur. *)
Definition present (p : problem) : list nat := nodup Nat.eq_dec (map (y p) (seq 0 (n p))).

(** No sample uses coordinate e. *)
Definition spare (p : problem) (e : nat) (H : nat -> nat -> R) : Prop :=
  (e < d p)%nat /\ forall i, (i < n p)%nat -> H i e = 0.

(** Class c moves by s into coordinate e: h_i becomes sqrt(1 - s^2) h_i + s e. *)
Definition lift (y : nat -> nat) (e c : nat) (s : R) (H : nat -> nat -> R) (i r : nat) : R :=
  if (y i =? c)%nat then sqrt (1 - s ^ 2) * H i r + (if (r =? e)%nat then s else 0) else H i r.

(** A minimum over the feasible points whose entries all differ by less than eps. *)
Definition local_minimiser (p : problem) (H : nat -> nat -> R) : Prop :=
  feasible p H /\ exists eps, 0 < eps /\ forall H', feasible p H' ->
    (forall i r, (i < n p)%nat -> (r < d p)%nat -> Rabs (H' i r - H i r) < eps) -> objective p H <= objective p H'.

(** ** Continuity in the length of the lift, at 0 *)

Lemma cont_const a : continuity_pt (fun _ => a) 0.
Proof. apply continuity_pt_const. intros x z. reflexivity. Qed.

Lemma cont_plus f g : continuity_pt f 0 -> continuity_pt g 0 -> continuity_pt (fun s => f s + g s) 0.
Proof. apply (continuity_pt_plus f g). Qed.

Lemma cont_minus f g : continuity_pt f 0 -> continuity_pt g 0 -> continuity_pt (fun s => f s - g s) 0.
Proof. apply (continuity_pt_minus f g). Qed.

Lemma cont_mult f g : continuity_pt f 0 -> continuity_pt g 0 -> continuity_pt (fun s => f s * g s) 0.
Proof. apply (continuity_pt_mult f g). Qed.

Lemma cont_scal a f : continuity_pt f 0 -> continuity_pt (fun s => a * f s) 0.
Proof. apply cont_mult, cont_const. Qed.

Lemma cont_opp f : continuity_pt f 0 -> continuity_pt (fun s => - f s) 0.
Proof. apply (continuity_pt_opp f). Qed.

Lemma cont_div f g : continuity_pt f 0 -> continuity_pt g 0 -> g 0 <> 0 -> continuity_pt (fun s => f s / g s) 0.
Proof. apply (continuity_pt_div f g). Qed.

Lemma cont_exp f : continuity_pt f 0 -> continuity_pt (fun s => exp (f s)) 0.
Proof. intros F. apply (continuity_pt_comp f exp); auto. apply derivable_continuous_pt, derivable_pt_exp. Qed.

Lemma cont_sum {A} (l : list A) (f : R -> A -> R) :
  (forall x, In x l -> continuity_pt (fun s => f s x) 0) -> continuity_pt (fun s => sum l (f s)) 0.
Proof.
  induction l as [|a l IH]; intros F; simpl; [apply cont_const|].
  apply cont_plus; [apply F; left; auto | apply IH; intros; apply F; right; auto].
Qed.

Lemma cont_root : continuity_pt (fun s => sqrt (1 - s ^ 2)) 0.
Proof.
  apply (continuity_pt_comp (fun s => 1 - s ^ 2) sqrt).
  - apply cont_minus; [apply cont_const | apply derivable_continuous_pt, derivable_pt_pow].
  - apply continuity_pt_sqrt. simpl. lra.
Qed.

Lemma cont_slope L y B i (g : R -> nat -> R) x :
  valid L -> NoDup B -> In i B -> acts L y B (y i) = true ->
  (forall l, continuity_pt (fun s => g s l) 0) -> continuity_pt (fun s => slope L y B i (g s) x) 0.
Proof.
  intros V D I A C.
  destruct (loss_cases L) as [(w & a & tau & alpha & E) | [(w & s & b & ev & E) | (w & tau & E)]].
  - destruct (acting_lse L y B i D I A _ _ _ _ E) as [P T]. rewrite E in V |- *. destruct (V B (y i)) as [_ Vt].
    set (own := a B (y i) (y i)) in *. set (mar := fun l => a B (y i) (y l)) in *.
    set (pos := positives y B i) in *. set (neg := negatives y B i) in *.
    assert (X : forall m l, continuity_pt (fun s => exp (m + g s l / tau B (y i))) 0).
    { intros m l. apply cont_exp, cont_plus; [apply cont_const|]. apply cont_div; [apply C | apply cont_const | lra]. }
    pose proof (lse_partition_pos alpha own (tau B (y i)) mar pos neg P T (g 0)) as Pp.
    assert (Z : continuity_pt (fun s => lse_partition alpha own (tau B (y i)) mar pos neg (g s)) 0).
    { unfold lse_partition. apply cont_plus; [destruct alpha; [|apply cont_const]|]; apply cont_sum; intros; apply X. }
    unfold slope. fold own mar pos neg. apply cont_scal.
    destruct (y x =? y i)%nat; (apply cont_div; [|apply cont_const | lra]).
    + apply cont_minus; [|apply cont_const]. unfold p_pos. apply cont_div; [|apply Z | lra].
      destruct alpha; [apply X | apply cont_const].
    + unfold p_neg. apply cont_div; [apply X | apply Z | lra].
  - rewrite E. assert (X : forall f, continuity_pt f 0 -> continuity_pt (fun u => logistic (f u)) 0).
    { intros f F. unfold logistic. apply cont_div; [apply cont_exp; auto| |pose proof (exp_pos (f 0)); lra].
      apply cont_plus; [apply cont_const | apply cont_exp; auto]. }
    assert (Y : continuity_pt (fun u => s * g u x + b) 0) by (apply cont_plus; [apply cont_scal, C | apply cont_const]).
    unfold slope. apply cont_scal. destruct (y x =? y i)%nat; [apply cont_opp|]; apply cont_scal, X; auto using cont_opp.
  - rewrite E. exact (cont_const 0).
Qed.

Lemma cont_gradient p (G : R -> nat -> nat -> R) i j : well_formed p ->
  (forall a b, continuity_pt (fun s => G s a b) 0) -> continuity_pt (fun s => gradient p (G s) i j) 0.
Proof.
  intros W C. assert (X : forall a b, continuity_pt (fun s => pull p (G s) a b) 0).
  { intros a b. unfold pull. apply cont_sum. intros B IB.
    destruct (mem a B && acts (L p) (y p) B (y p a) && mem b B && negb (b =? a)%nat) eqn:M; [|apply cont_const].
    rewrite !andb_true_iff, !mem_In in M. destruct M as [[[Ia A] _] _].
    apply cont_slope; auto; [apply (loss_valid p W) | apply (batches_distinct p W B IB)]. }
  unfold gradient. apply cont_div; [apply cont_plus; auto | apply cont_const | lra].
Qed.

Lemma cont_gram_lift y d e c H i j : continuity_pt (fun s => gram d (lift y e c s H) i j) 0.
Proof.
  assert (X : forall l r, continuity_pt (fun s => lift y e c s H l r) 0).
  { intros l r. unfold lift. destruct (y l =? c)%nat; [|apply cont_const].
    apply cont_plus; [apply cont_mult; [apply cont_root | apply cont_const]|].
    destruct (r =? e)%nat; [apply derivable_continuous_pt, derivable_pt_id | apply cont_const]. }
  unfold gram. apply cont_sum. intros r _. apply cont_mult; apply X.
Qed.

(** ** What the lift adds to the Gram matrix *)

Definition indicator (y : nat -> nat) (c i : nat) : R := if (y i =? c)%nat then 1 else 0.

(** (1 - sqrt(1 - s^2)) / s^2, without the division by 0. *)
Definition shrink (s : R) : R := / (1 + sqrt (1 - s ^ 2)).

(** What it adds, over s^2. *)
Definition added (y : nat -> nat) (c : nat) (G : nat -> nat -> R) (s : R) (i j : nat) : R :=
  let a := indicator y c i in
  let b := indicator y c j in
  a * b * (1 - G i j) - shrink s * ((a * (1 - b) + b * (1 - a)) * G i j).

Lemma cont_added y c G i j : continuity_pt (fun s => added y c G s i j) 0.
Proof.
  unfold added. apply cont_minus; [apply cont_const|]. apply cont_mult; [|apply cont_const].
  apply (continuity_pt_inv (fun s => 1 + sqrt (1 - s ^ 2))).
  - apply cont_plus; [apply cont_const | apply cont_root].
  - pose proof (sqrt_pos (1 - 0 ^ 2)). lra.
Qed.

Lemma lift_0 y e c H : lift y e c 0 H = H.
Proof.
  extensionality i. extensionality r. unfold lift.
  replace (1 - 0 ^ 2) with 1 by ring. rewrite sqrt_1. destruct (y i =? c)%nat, (r =? e)%nat; ring.
Qed.

Lemma square_le_1 s : 0 <= s <= 1 -> 0 <= 1 - s ^ 2.
Proof. intros S. pose proof (Rmult_le_compat s 1 s 1) as X. simpl. lra. Qed.

Section Escape.
Variable p : problem.
Hypothesis W : well_formed p.

Let all := seq 0 (n p).

Lemma gram_lift e c s H i j : 0 <= s <= 1 -> spare p e H -> (i < n p)%nat -> (j < n p)%nat ->
  gram (d p) (lift (y p) e c s H) i j = gram (d p) H i j + s ^ 2 * added (y p) c (gram (d p) H) s i j.
Proof.
  intros S [De Sp] I J. pose proof (sqrt_sqrt _ (square_le_1 s S)) as Q. pose proof (sqrt_pos (1 - s ^ 2)) as P.
  unfold added, shrink. set (q := sqrt (1 - s ^ 2)) in *. set (a := indicator (y p) c i). set (b := indicator (y p) c j).
  assert (E : forall l r, lift (y p) e c s H l r
    = (1 - indicator (y p) c l * (1 - q)) * H l r + indicator (y p) c l * (if (r =? e)%nat then s else 0)).
  { intros l r. unfold lift, indicator. fold q. destruct (y p l =? c)%nat; ring. }
  unfold gram at 1.
  rewrite (sum_ext _ _ (fun r => (1 - a * (1 - q)) * (1 - b * (1 - q)) * (H i r * H j r)
    + (if (r =? e)%nat then (fun _ => a * b * s ^ 2) r else 0))).
  - rewrite sum_plus, sum_scal, sum_delta; [|apply seq_NoDup | apply in_seq; lia].
    change (sum (seq 0 (d p)) (fun r => H i r * H j r)) with (gram (d p) H i j). set (g := gram (d p) H i j).
    replace (s ^ 2) with (1 - q * q) by lra.
    unfold a, b, indicator. destruct (y p i =? c)%nat, (y p j =? c)%nat; field; lra.
  - intros r Ir. rewrite !E. fold a b. destruct (Nat.eqb_spec r e) as [->|]; [|ring].
    rewrite (Sp i I), (Sp j J). ring.
Qed.

Lemma lift_feasible e c s H : 0 <= s <= 1 -> spare p e H -> feasible p H -> feasible p (lift (y p) e c s H).
Proof.
  intros S Sp F i I. destruct (F i I) as [P N]. split.
  - intros r R. specialize (P r R). pose proof (sqrt_pos (1 - s ^ 2)). unfold lift.
    destruct (y p i =? c)%nat; auto. apply Rplus_le_le_0_compat; [apply Rmult_le_pos; auto|]. destruct (_ =? _)%nat; lra.
  - rewrite gram_lift by auto. unfold added, indicator. destruct (y p i =? c)%nat; [|lra].
    replace (_ + _) with (1 - (1 - s ^ 2) * (1 - gram (d p) H i i)) by ring.
    pose proof (Rmult_le_pos _ (1 - gram (d p) H i i) (square_le_1 s S)). lra.
Qed.

Lemma lift_near e c s H i r : 0 < s <= 1 -> feasible p H -> spare p e H -> (i < n p)%nat -> (r < d p)%nat ->
  Rabs (lift (y p) e c s H i r - H i r) <= s.
Proof.
  intros S F [_ Sp] I R. destruct (F i I) as [P N]. specialize (P r R). unfold lift.
  destruct (y p i =? c)%nat; [|unfold Rminus; rewrite Rplus_opp_r, Rabs_R0; lra].
  destruct (Nat.eqb_spec r e) as [->|_]; [rewrite Sp by auto; rewrite Rabs_right; lra|].
  assert (H1 : H i r * H i r <= 1).
  { eapply Rle_trans; [|apply N]. apply (sum_term_le (seq 0 (d p)) (fun r => H i r * H i r)).
    - intros z _. apply Rle_0_sqr.
    - apply in_seq. lia. }
  assert (H2 : H i r <= 1) by (apply Rnot_lt_le; intros X; pose proof (Rmult_lt_compat_l (H i r) 1 (H i r)); lra).
  assert (Q1 : sqrt (1 - s ^ 2) <= 1).
  { rewrite <- sqrt_1 at 2. apply sqrt_le_1_alt. pose proof (pow2_ge_0 s). lra. }
  assert (Q2 : 1 - s <= sqrt (1 - s ^ 2)).
  { rewrite <- (sqrt_pow2 (1 - s)) by lra. apply sqrt_le_1_alt. simpl. pose proof (Rmult_le_compat_l s s 1). lra. }
  pose proof (Rmult_le_compat (1 - sqrt (1 - s ^ 2)) s (H i r) 1).
  pose proof (Rmult_le_pos (1 - sqrt (1 - s ^ 2)) (H i r)). rewrite Rabs_left1; lra.
Qed.

(** ** The classes together move towards the frame *)

Lemma frame_gram_sym : symmetric (frame_gram (y p)).
Proof. intros i j. unfold frame_gram. rewrite Nat.eqb_sym. reflexivity. Qed.

(** A frame's Gram matrix has the value of the bound, whatever d is. *)
Lemma frame_gram_value : value (L p) (y p) (family p) (frame_gram (y p)) = loss_bound p.
Proof.
  apply equality_gram; auto.
  - intros i j _ _. unfold frame_gram. destruct (_ =? _)%nat; lra.
  - intros B i _ _. assert (P : forall j, In j (positives (y p) B i) -> frame_gram (y p) i j = 1).
    { intros j J. apply in_positives in J. destruct J as (_ & _ & E). unfold frame_gram.
      rewrite E, Nat.eqb_refl. reflexivity. }
    split.
    + intros _. split; auto. intros l J. apply in_negatives in J. unfold frame_gram.
      destruct (Nat.eqb_spec (y p i) (y p l)); [intuition congruence | auto].
    + destruct (L p); auto. destruct alpha; auto. intros j j' J J'. rewrite !P; auto.
Qed.

Lemma added_to_frame G i j : (i < n p)%nat -> (j < n p)%nat ->
  sum (present p) (fun c => added (y p) c G 0 i j) = frame_gram (y p) i j - G i j.
Proof.
  intros I J.
  assert (One : forall l f, (l < n p)%nat -> sum (present p) (fun c => indicator (y p) c l * f c) = f (y p l)).
  { intros l f Lt. rewrite <- (sum_delta (present p) (y p l) f); [|apply NoDup_nodup|apply nodup_In, in_map, in_seq; lia].
    apply sum_ext. intros c _. unfold indicator. rewrite Nat.eqb_sym. destruct (_ =? _)%nat; ring. }
  assert (Half : shrink 0 = / 2) by (unfold shrink; rewrite pow_i, Rminus_0_r, sqrt_1 by lia; f_equal; ring).
  set (f := fun c => indicator (y p) c j * (1 - G i j) - / 2 * ((1 - indicator (y p) c j) * G i j)).
  set (g := fun c => - / 2 * ((1 - indicator (y p) c i) * G i j)).
  rewrite (sum_ext _ _ (fun c => indicator (y p) c i * f c + indicator (y p) c j * g c))
    by (intros; unfold added, f, g; rewrite Half; ring).
  rewrite sum_plus, (One i f), (One j g) by auto.
  unfold f, g, indicator, frame_gram. rewrite (Nat.eqb_sym (y p j)). destruct (_ =? _)%nat; field.
Qed.

(** If a sum is negative, some term is at most its share. *)
Lemma least_of_mean (l : list nat) f S : sum l f <= S -> S < 0 -> exists x, In x l /\ f x <= S / INR (length l).
Proof.
  intros T N. destruct (Exists_dec (fun x => f x <= S / INR (length l)) l) as [E|E].
  - intros x. apply Rle_dec.
  - apply Exists_exists in E. auto.
  - exfalso. rewrite <- Forall_Exists_neg, Forall_forall in E.
    destruct l as [|a l]; [simpl in T; lra|]. pose proof (INR_length_pos (a :: l)) as P.
    assert (Z : 0 < sum (a :: l) (fun x => f x - S / INR (length (a :: l)))).
    { apply sum_pos; [discriminate|]. intros x I. specialize (E x I). lra. }
    rewrite sum_minus, sum_const in Z.
    replace (INR (length (a :: l)) * (S / INR (length (a :: l)))) with S in Z; [lra|].
    field. assert (X : 0 < INR (length (a :: l))) by (apply P; discriminate). lra.
Qed.

Section Convex.
Hypothesis L_convex : convex (L p).

(** q_c of the book: the slope of the loss in s^2, by class, and the bound on their sum. *)
Definition curvature c (G : nat -> nat -> R) : R := inner all (gradient p G) (added (y p) c G 0).

Lemma curvatures G : symmetric G ->
  sum (present p) (fun c => curvature c G) <= loss_bound p - value (L p) (y p) (family p) G.
Proof.
  intros S. pose proof (tangent p W L_convex _ G frame_gram_sym S) as T. rewrite frame_gram_value in T.
  replace (sum (present p) (fun c => curvature c G))
    with (inner all (gradient p G) (fun i j => frame_gram (y p) i j - G i j)); [fold all in T; lra|].
  unfold curvature, inner. symmetry. rewrite (sum_swap (present p)). apply sum_ext. intros i I.
  rewrite (sum_swap (present p)). apply sum_ext. intros j J. apply in_seq in I, J.
  rewrite sum_scal, added_to_frame by lia. reflexivity.
Qed.

(** By the tangent at the lifted point the loss changes by at most s^2 times a continuous function of s. *)
Lemma lift_change e c s H : 0 <= s <= 1 -> spare p e H ->
  objective p (lift (y p) e c s H) <= objective p H
    + s ^ 2 * inner all (gradient p (gram (d p) (lift (y p) e c s H))) (added (y p) c (gram (d p) H) s).
Proof.
  intros S Sp. set (G' := gram (d p) (lift (y p) e c s H)). set (C := gradient p G').
  pose proof (tangent p W L_convex (gram (d p) H) G' (gram_sym _ _) (gram_sym _ _)) as T. fold all C in T.
  replace (inner all C (fun i j => gram (d p) H i j - G' i j))
    with (- s ^ 2 * inner all C (added (y p) c (gram (d p) H) s)) in T.
  - unfold objective. fold G'. lra.
  - unfold inner. rewrite <- sum_scal. apply sum_ext. intros i I. rewrite <- sum_scal. apply sum_ext. intros j J.
    apply in_seq in I, J. unfold G'. rewrite gram_lift by (auto; lia). ring.
Qed.

(** A feasible point above the value of a frame, with a coordinate that no sample uses: lifting some class, however
    little, keeps it feasible and lowers the loss. To first order in s^2 it falls by s^2 gap / k, k the number of
    labels that occur. *)
Theorem one_spare_coordinate H e : feasible p H -> spare p e H -> loss_bound p < objective p H ->
  exists c, In c (present p) /\ forall delta, 0 < delta -> exists s0, 0 < s0 <= 1 /\ forall s, 0 < s < s0 ->
    feasible p (lift (y p) e c s H) /\
    objective p (lift (y p) e c s H)
    <= objective p H - s ^ 2 * ((objective p H - loss_bound p) / INR (length (present p)) - delta).
Proof.
  intros F Sp Above. set (G := gram (d p) H). set (gap := objective p H - loss_bound p). set (k := INR _).
  destruct (least_of_mean (present p) (fun c => curvature c G) (- gap)) as (c & Ic & Q).
  { eapply Rle_trans; [apply curvatures; intros i j; apply gram_sym|]. unfold gap, objective. fold G. lra. }
  { unfold gap. lra. }
  exists c. split; auto. intros delta Pd.
  set (f := fun s => inner all (gradient p (gram (d p) (lift (y p) e c s H))) (added (y p) c G s)).
  assert (C : continuity_pt f 0).
  { unfold f, inner. apply cont_sum. intros i _. apply cont_sum. intros j _. apply cont_mult; [|apply cont_added].
    apply (cont_gradient p (fun s => gram (d p) (lift (y p) e c s H))); auto. intros; apply cont_gram_lift. }
  assert (F0 : f 0 = curvature c G) by (unfold f; rewrite lift_0; reflexivity).
  destruct (C delta Pd) as (s1 & P1 & Near). exists (Rmin s1 1).
  assert (M1 : Rmin s1 1 <= s1) by apply Rmin_l. assert (M2 : Rmin s1 1 <= 1) by apply Rmin_r.
  split; [split; [apply Rmin_glb_lt; lra | auto]|]. intros s S.
  split; [apply lift_feasible; auto; lra|]. eapply Rle_trans; [apply lift_change; auto; lra|].
  assert (N : f s <= - gap / k + delta).
  { assert (X : Rabs (f s - f 0) < delta).
    { apply Near. split; [split; [exact I | lra]|]. simpl. unfold R_dist. rewrite Rminus_0_r, Rabs_right; lra. }
    apply Rabs_def2 in X. fold k in Q. lra. }
  apply Rmult_le_compat_l with (r := s ^ 2) in N; [|apply pow2_ge_0]. unfold f in N. fold G.
  replace (s ^ 2 * (gap / k - delta)) with (- (s ^ 2 * (- gap / k + delta))) by (unfold Rdiv; ring). lra.
Qed.

(** A local minimum that leaves a coordinate unused is a global one. *)
Theorem no_spurious_minimum H e :
  local_minimiser p H -> spare p e H -> minimiser p H /\ objective p H = loss_bound p.
Proof.
  intros [F (eps & Pe & M)] Sp. assert (E : objective p H = loss_bound p).
  2:{ split; auto. split; auto. intros H' F'. rewrite E. apply bound; auto. }
  destruct (Rle_lt_or_eq_dec _ _ (bound p W H F)) as [Above|]; auto. exfalso.
  destruct (one_spare_coordinate H e F Sp Above) as (c & Ic & G). set (k := INR (length (present p))) in *.
  assert (Pk : 0 < k) by (apply INR_length_pos; intros Z; rewrite Z in Ic; destruct Ic).
  set (q := (objective p H - loss_bound p) / k) in *. assert (Pq : 0 < q) by (apply Rdiv_lt_0_compat; lra).
  destruct (G (q / 2)) as (s0 & P0 & Ls); [lra|].
  assert (P1 : 0 < Rmin s0 eps) by (apply Rmin_glb_lt; lra).
  assert (M1 : Rmin s0 eps <= s0) by apply Rmin_l. assert (M2 : Rmin s0 eps <= eps) by apply Rmin_r.
  set (s := Rmin s0 eps / 2) in *. destruct (Ls s) as [F' Low]; [unfold s; lra|].
  assert (P2 : 0 < s ^ 2 * (q - q / 2)) by (apply Rmult_lt_0_compat; [apply pow_lt; unfold s|]; lra).
  assert (X : objective p H <= objective p (lift (y p) e c s H)); [|lra].
  apply M; auto. intros i r I R. apply Rle_lt_trans with s; [apply lift_near; auto|]; unfold s; lra.
Qed.
End Convex.
End Escape.
