(** The formal losses evaluated: [value] at a rational embedding lies in an interval that Coq computes.
    [Examples] compares it with numbers that an independent program computed. *)

From Coq Require Import Reals Lra Lia List Arith ZArith QArith Qreals Bool FunctionalExtensionality.
From UFM Require Import Sums Model Intervals.
Import ListNotations.
Open Scope R_scope.

(** ** Losses and embeddings with rational numbers *)

Inductive qloss : Type :=
  | QLogSumExp (weight : list nat -> nat -> Q) (margin : list nat -> nat -> nat -> Q) (tau : list nat -> nat -> Q) (alpha : bool)
  | QSigmoid (weight : list nat -> nat -> Q) (t bias : Q) (everyone : bool)
  | QSupConIn (weight : list nat -> nat -> Q) (tau : list nat -> nat -> Q).

(** The formal loss meant. *)
Definition real_loss (l : qloss) : loss :=
  match l with
  | QLogSumExp weight margin tau alpha =>
      LogSumExp (fun B c => Q2R (weight B c)) (fun B c e => Q2R (margin B c e)) (fun B c => Q2R (tau B c)) alpha
  | QSigmoid weight t bias everyone => Sigmoid (fun B c => Q2R (weight B c)) (Q2R t) (Q2R bias) everyone
  | QSupConIn weight tau => SupConIn (fun B c => Q2R (weight B c)) (fun B c => Q2R (tau B c))
  end.

Definition QSCL (tau : Q) : qloss := QLogSumExp (fun _ _ => 1%Q) (fun _ _ _ => 0%Q) (fun _ _ => tau) true.

Fixpoint qsum {A} (l : list A) (f : A -> Q) : Q := match l with [] => 0%Q | a :: l' => Qred (f a + qsum l' f) end.

Lemma qsum_correct {A} (l : list A) f : Q2R (qsum l f) = sum l (fun a => Q2R (f a)).
Proof.
  induction l as [|a l IH]; [unfold Q2R; simpl; lra|].
  change (qsum (a :: l) f) with (Qred (f a + qsum l f)). simpl sum.
  rewrite (Qeq_eqR _ _ (Qred_correct _)), Q2R_plus, IH. reflexivity.
Qed.

Definition qgram (d : nat) (H : nat -> nat -> Q) (i j : nat) : Q := qsum (seq 0 d) (fun r => (H i r * H j r)%Q).

Lemma qgram_correct d H i j : Q2R (qgram d H i j) = gram d (fun i r => Q2R (H i r)) i j.
Proof. unfold qgram, gram. rewrite qsum_correct. apply sum_ext. intros. apply Q2R_mult. Qed.

(** ** The loss in interval arithmetic, line by line as in [Model] *)

Definition nonzero (q : Q) : bool := negb (Qeq_bool q 0).

Definition guarded (b : bool) (I : interval) : interval := if b then I else None.

Definition of_nat (m : nat) : Q := inject_Z (Z.of_nat m).

Definition qmean (l : list nat) (g : nat -> Q) : Q := (qsum l g / of_nat (length l))%Q.

Definition irow (l : qloss) (y : nat -> nat) (B : list nat) (i : nat) (g : nat -> Q) : interval :=
  let c := y i in
  let pos := positives y B i in
  let neg := negatives y B i in
  match l with
  | QLogSumExp weight margin tau alpha =>
      guarded (nonzero (tau B c) && nonzero (of_nat (length pos)))
        (scale (weight B c)
           (sub (iln (add (if alpha then isum pos (fun j => iexp (of_Q (margin B c c + g j / tau B c))) else of_Q 0)
                          (isum neg (fun l => iexp (of_Q (margin B c (y l) + g l / tau B c))))))
                (of_Q (qmean pos (fun j => g j / tau B c)%Q))))
  | QSigmoid weight t bias _ =>
      scale (weight B c)
        (add (isum pos (fun j => iln (add (of_Q 1) (iexp (of_Q (- (t * g j + bias)))))))
             (isum neg (fun l => iln (add (of_Q 1) (iexp (of_Q (t * g l + bias)))))))
  | QSupConIn weight tau =>
      guarded (nonzero (tau B c) && nonzero (of_nat (length pos)))
        (scale (weight B c)
           (sub (iln (add (isum pos (fun j => iexp (of_Q (g j / tau B c)))) (isum neg (fun l => iexp (of_Q (g l / tau B c))))))
                (iln (scale (1 / of_nat (length pos)) (isum pos (fun j => iexp (of_Q (g j / tau B c))))))))
  end.

Definition ivalue (l : qloss) (y : nat -> nat) (family : list (list nat)) (G : nat -> nat -> Q) : interval :=
  isum family (fun B => isum (anchors (real_loss l) y B) (fun i => irow l y B i (G i))).

Lemma nonzero_neq q : nonzero q = true -> ~ (q == 0)%Q.
Proof. unfold nonzero. intros N E. apply Qeq_bool_iff in E. rewrite E in N. discriminate. Qed.

Lemma of_nat_INR m : Q2R (of_nat m) = INR m.
Proof. unfold of_nat, inject_Z, Q2R. simpl. rewrite INR_IZR_INZ. field. Qed.

Lemma of_Q_eq q x : Q2R q = x -> contains (of_Q q) x.
Proof. intros <-. apply of_Q_contains. Qed.

Lemma Q2R_0' : Q2R 0 = 0.
Proof. unfold Q2R. simpl. lra. Qed.

Lemma Q2R_1' : Q2R 1 = 1.
Proof. unfold Q2R. simpl. lra. Qed.

Lemma exp_term m g t : nonzero t = true -> contains (iexp (of_Q (m + g / t))) (exp (Q2R m + Q2R g / Q2R t)).
Proof.
  intros N. apply iexp_contains, of_Q_eq. rewrite Q2R_plus, Q2R_div; auto using nonzero_neq.
Qed.

Lemma exp_term' g t : nonzero t = true -> contains (iexp (of_Q (g / t))) (exp (Q2R g / Q2R t)).
Proof. intros N. apply iexp_contains, of_Q_eq. rewrite Q2R_div; auto using nonzero_neq. Qed.

Lemma irow_contains l y B i g : contains (irow l y B i g) (row (real_loss l) y B i (fun j => Q2R (g j))).
Proof.
  destruct l as [w a tau alpha | w t b ev | w tau]; unfold irow, real_loss, row.
  - destruct (nonzero (tau B (y i)) && nonzero (of_nat (length (positives y B i))))%bool eqn:N; [|exact I].
    apply andb_prop in N. destruct N as [N N']. apply scale_contains, sub_contains.
    + apply iln_contains, add_contains.
      * destruct alpha; [|apply of_Q_eq, Q2R_0']. apply isum_contains. intros. apply exp_term, N.
      * apply isum_contains. intros. apply exp_term, N.
    + apply of_Q_eq. unfold qmean, mean. rewrite Q2R_div, of_nat_INR, qsum_correct by (apply nonzero_neq, N').
      f_equal. apply sum_ext. intros. apply Q2R_div, nonzero_neq, N.
  - apply scale_contains, add_contains; apply isum_contains; intros j _; apply iln_contains, add_contains;
      try (apply of_Q_eq, Q2R_1'); apply iexp_contains, of_Q_eq; rewrite ?Q2R_opp, Q2R_plus, Q2R_mult; reflexivity.
  - destruct (nonzero (tau B (y i)) && nonzero (of_nat (length (positives y B i))))%bool eqn:N; [|exact I].
    apply andb_prop in N. destruct N as [N N']. apply scale_contains, sub_contains; apply iln_contains.
    + apply add_contains; apply isum_contains; intros; apply exp_term', N.
    + unfold mean, Rdiv at 1. rewrite Rmult_comm.
      replace (/ INR (length (positives y B i))) with (Q2R (1 / of_nat (length (positives y B i)))).
      * apply scale_contains, isum_contains. intros; apply exp_term', N.
      * rewrite Q2R_div, of_nat_INR, Q2R_1' by (apply nonzero_neq, N'). unfold Rdiv. ring.
Qed.

Theorem ivalue_contains l y family G :
  contains (ivalue l y family G) (value (real_loss l) y family (fun i j => Q2R (G i j))).
Proof.
  apply isum_contains. intros B _. apply isum_contains. intros i _. apply irow_contains.
Qed.

(** ** Cases *)

Record case : Type := Case {
  labels : list nat;
  rows : list (list Q);        (* one row a sample *)
  batches : list (list nat);
  case_loss : qloss;
  expected : Q                 (* what the independent program says, to 20 digits *)
}.

Definition tolerance : Q := 1 # 10000000000.

Definition label_of (c : case) (i : nat) : nat := nth i (labels c) 0%nat.
Definition embedding (c : case) (i r : nat) : Q := nth r (nth i (rows c) []) 0%Q.

Definition problem_of (c : case) : problem :=
  Problem (length (labels c)) (S (list_max (labels c))) (length (nth 0 (rows c) []))
    (label_of c) (batches c) (real_loss (case_loss c)).

Definition agrees (c : case) : Prop :=
  Rabs (objective (problem_of c) (fun i r => Q2R (embedding c i r)) - Q2R (expected c)) <= Q2R tolerance.

Definition agreeing (c : case) : bool :=
  near (expected c) tolerance
    (ivalue (case_loss c) (label_of c) (batches c) (qgram (length (nth 0 (rows c) [])) (embedding c))).

Theorem agreeing_sound c : agreeing c = true -> agrees c.
Proof.
  intros A. unfold agrees, agreeing in *. eapply near_sound; [|exact A].
  pose proof (ivalue_contains (case_loss c) (label_of c) (batches c)
    (qgram (length (nth 0 (rows c) [])) (embedding c))) as C.
  unfold objective, problem_of. simpl L. simpl y. simpl family. simpl d.
  replace (value (real_loss (case_loss c)) (label_of c) (batches c)
    (gram (length (nth 0 (rows c) [])) (fun i r => Q2R (embedding c i r))))
    with (value (real_loss (case_loss c)) (label_of c) (batches c)
      (fun i j => Q2R (qgram (length (nth 0 (rows c) [])) (embedding c) i j))); [exact C|].
  apply sum_ext. intros B _. apply sum_ext. intros i _. f_equal.
  apply functional_extensionality. intros j. apply qgram_correct.
Qed.

Theorem all_agree cs : forallb agreeing cs = true -> Forall agrees cs.
Proof.
  intros F. apply Forall_forall. intros c I. apply agreeing_sound. apply forallb_forall with (x := c) in F; auto.
Qed.
