(** Finite sums over lists, and the three facts about the exponential that everything rests on. *)

From Coq Require Import Reals Lra Lia List Arith Bool.
Import ListNotations.
Open Scope R_scope.

Fixpoint sum {A} (l : list A) (f : A -> R) : R :=
  match l with
  | [] => 0
  | x :: l' => f x + sum l' f
  end.

Section Sums.
Context {A : Type}.
Implicit Types (l : list A) (f g : A -> R).

Lemma sum_ext l f g : (forall x, In x l -> f x = g x) -> sum l f = sum l g.
Proof.
  induction l as [|a l IH]; simpl; intros E; auto.
  rewrite (E a), IH; auto.
Qed.

Lemma sum_plus l f g : sum l (fun x => f x + g x) = sum l f + sum l g.
Proof. induction l as [|a l IH]; simpl; lra. Qed.

Lemma sum_minus l f g : sum l (fun x => f x - g x) = sum l f - sum l g.
Proof. induction l as [|a l IH]; simpl; lra. Qed.

Lemma sum_scal l c f : sum l (fun x => c * f x) = c * sum l f.
Proof. induction l as [|a l IH]; simpl; lra. Qed.

Lemma sum_scal_r l c f : sum l (fun x => f x * c) = sum l f * c.
Proof. induction l as [|a l IH]; simpl; lra. Qed.

Lemma sum_const l c : sum l (fun _ => c) = INR (length l) * c.
Proof.
  induction l as [|a l IH]; [simpl; lra|].
  change (length (a :: l)) with (S (length l)). rewrite S_INR. simpl sum. lra.
Qed.

Lemma sum_zero l f : (forall x, In x l -> f x = 0) -> sum l f = 0.
Proof. intros Z. rewrite (sum_ext l f (fun _ => 0) Z), sum_const. lra. Qed.

Lemma sum_le l f g : (forall x, In x l -> f x <= g x) -> sum l f <= sum l g.
Proof.
  induction l as [|a l IH]; simpl; intros E; [lra|].
  apply Rplus_le_compat; auto.
Qed.

Lemma sum_nonneg l f : (forall x, In x l -> 0 <= f x) -> 0 <= sum l f.
Proof. intros P. rewrite <- (sum_zero l (fun _ => 0)); auto. apply sum_le; auto. Qed.

Lemma sum_term_le l f x : (forall z, In z l -> 0 <= f z) -> In x l -> f x <= sum l f.
Proof.
  induction l as [|a l IH]; simpl; [tauto|]. intros P [<-|I].
  - pose proof (sum_nonneg l f (fun z I => P z (or_intror I))). lra.
  - pose proof (P a (or_introl eq_refl)). pose proof (IH (fun z I => P z (or_intror I)) I). lra.
Qed.

(** Terms that are nonnegative and add up to 0 are 0. *)
Lemma sum_zero_each l f : (forall x, In x l -> 0 <= f x) -> sum l f = 0 -> forall x, In x l -> f x = 0.
Proof. intros P Z x I. pose proof (sum_term_le l f x P I). pose proof (P x I). lra. Qed.

Lemma sum_pos l f : l <> [] -> (forall x, In x l -> 0 < f x) -> 0 < sum l f.
Proof.
  destruct l as [|a l]; [tauto|]. intros _ P.
  apply Rlt_le_trans with (f a); [apply P; left; auto|].
  apply sum_term_le with (x := a); [|left; auto]. intros z I. specialize (P z I). lra.
Qed.

Lemma sum_app l l' f : sum (l ++ l') f = sum l f + sum l' f.
Proof. induction l as [|a l IH]; simpl; lra. Qed.

Lemma sum_filter l (p : A -> bool) f : sum (filter p l) f = sum l (fun x => if p x then f x else 0).
Proof. induction l as [|a l IH]; simpl; [lra|]. destruct (p a); simpl; lra. Qed.

Lemma sum_split l (p : A -> bool) f :
  sum l f = sum (filter p l) f + sum (filter (fun x => negb (p x)) l) f.
Proof.
  rewrite !sum_filter, <- sum_plus. apply sum_ext. intros x _. destruct (p x); simpl; lra.
Qed.

Lemma sum_map {B} (h : B -> A) (l : list B) f : sum (map h l) f = sum l (fun b => f (h b)).
Proof. induction l as [|b l IH]; simpl; lra. Qed.

Lemma sum_abs l f : Rabs (sum l f) <= sum l (fun x => Rabs (f x)).
Proof.
  induction l as [|a l IH]; simpl; [rewrite Rabs_R0; lra|].
  eapply Rle_trans; [apply Rabs_triang|]. lra.
Qed.
End Sums.

Lemma sum_swap {A B} (l : list A) (l' : list B) (f : A -> B -> R) :
  sum l (fun x => sum l' (f x)) = sum l' (fun z => sum l (fun x => f x z)).
Proof.
  induction l as [|a l IH]; simpl; [rewrite sum_zero; auto|].
  rewrite IH, <- sum_plus. reflexivity.
Qed.

(** The mean of g over a list. *)
Definition mean {A} (l : list A) (g : A -> R) : R := sum l g / INR (length l).

(** ** Sums over numbers *)

Definition others (B : list nat) (i : nat) : list nat := filter (fun j => negb (j =? i)%nat) B.

Lemma in_others B i j : In j (others B i) <-> In j B /\ j <> i.
Proof.
  unfold others. rewrite filter_In, negb_true_iff, Nat.eqb_neq. tauto.
Qed.

Lemma sum_pick B i f : NoDup B -> In i B -> sum B f = f i + sum (others B i) f.
Proof.
  unfold others. induction B as [|a B IH]; simpl; [tauto|].
  intros D I. inversion D; subst. destruct (Nat.eqb_spec a i) as [->|N]; simpl.
  - f_equal. rewrite sum_filter. apply sum_ext. intros x Ix.
    destruct (Nat.eqb_spec x i) as [->|]; simpl; auto. tauto.
  - destruct I as [->|I]; [tauto|]. rewrite IH; auto. lra.
Qed.

Lemma sum_delta l i f : NoDup l -> In i l -> sum l (fun j => if (j =? i)%nat then f j else 0) = f i.
Proof.
  intros D I. rewrite (sum_pick l i); auto. rewrite Nat.eqb_refl, sum_zero; [lra|].
  intros j J. apply in_others in J. destruct (Nat.eqb_spec j i); tauto.
Qed.

Lemma sum_by_class (y : nat -> nat) k l f :
  (forall i, In i l -> (y i < k)%nat) ->
  sum l f = sum (seq 0 k) (fun c => sum (filter (fun i => (y i =? c)%nat) l) f).
Proof.
  intros Y. rewrite (sum_ext (seq 0 k) _ (fun c => sum l (fun i => if (y i =? c)%nat then f i else 0)));
    [|intros; apply sum_filter].
  rewrite sum_swap. apply sum_ext. intros i I.
  rewrite (sum_ext _ _ (fun c => if (c =? y i)%nat then (fun _ => f i) c else 0)).
  - rewrite sum_delta; auto using seq_NoDup. apply in_seq. specialize (Y i I). lia.
  - intros c _. rewrite (Nat.eqb_sym c). reflexivity.
Qed.

(** ** The exponential *)

Lemma exp_ge x : 1 + x <= exp x.
Proof.
  destruct (Req_dec x 0) as [->|N]; [rewrite exp_0; lra|].
  left. apply exp_ineq1. auto.
Qed.

(** e^x - 1 - x, the curvature of the exponential: nonnegative, and 0 only at 0. *)
Definition phi (x : R) : R := exp x - 1 - x.

Lemma phi_nonneg x : 0 <= phi x.
Proof. unfold phi. pose proof (exp_ge x). lra. Qed.

Lemma phi_zero x : phi x = 0 <-> x = 0.
Proof.
  unfold phi. split; [|intros ->; rewrite exp_0; lra].
  intros E. destruct (Req_dec x 0) as [|N]; auto. pose proof (exp_ineq1 x N). lra.
Qed.

Definition expm1 (x : R) : R := exp x - 1.

Lemma expm1_nonneg x : 0 <= x -> 0 <= expm1 x.
Proof. unfold expm1. pose proof (exp_ge x). lra. Qed.

Lemma expm1_zero x : expm1 x = 0 <-> x = 0.
Proof.
  unfold expm1. split; [|intros ->; rewrite exp_0; lra].
  intros E. apply exp_inv. rewrite exp_0. lra.
Qed.

Lemma ln_le x z : 0 < x -> x <= z -> ln x <= ln z.
Proof. intros P [L | ->]; [left; apply ln_increasing; auto | lra]. Qed.

Lemma ln_div x z : 0 < x -> 0 < z -> ln (x / z) = ln x - ln z.
Proof.
  intros X Z. unfold Rdiv. rewrite ln_mult, ln_Rinv; auto using Rinv_0_lt_compat.
Qed.

Lemma div_zero x z : 0 < z -> x / z = 0 -> x = 0.
Proof.
  intros Z E. replace x with (x / z * z) by (field; lra). rewrite E. ring.
Qed.

(** log (1 + x), for the excess. *)
Definition log1p (x : R) : R := ln (1 + x).

Lemma log1p_nonneg x : 0 <= x -> 0 <= log1p x.
Proof. intros P. unfold log1p. rewrite <- ln_1. apply ln_le; lra. Qed.

Lemma log1p_zero x : 0 <= x -> (log1p x = 0 <-> x = 0).
Proof.
  unfold log1p. intros P. split; [|intros ->; rewrite Rplus_0_r; apply ln_1].
  intros E. assert (1 + x = 1); [|lra]. apply ln_inv; try lra. rewrite ln_1; auto.
Qed.

(** Jensen's inequality for the exponential: a mean of exponentials is at least the exponential of the mean. *)
Lemma jensen_exp {A} (l : list A) (p x : A -> R) :
  (forall a, In a l -> 0 <= p a) -> sum l p = 1 ->
  exp (sum l (fun a => p a * x a)) <= sum l (fun a => p a * exp (x a)).
Proof.
  intros P One. set (m := sum l (fun a => p a * x a)).
  apply Rle_trans with (exp m * sum l (fun a => p a * (1 + (x a - m)))).
  - rewrite (sum_ext l _ (fun a => p a * (1 - m) + p a * x a)) by (intros; ring).
    rewrite sum_plus, sum_scal_r, One. fold m. right. ring.
  - rewrite <- sum_scal. apply sum_le. intros a I.
    replace (x a) with (m + (x a - m)) at 2 by ring. rewrite exp_plus.
    replace (exp m * (p a * (1 + (x a - m)))) with (p a * (exp m * (1 + (x a - m)))) by ring.
    apply Rmult_le_compat_l; auto. apply Rmult_le_compat_l; [left; apply exp_pos|]. apply exp_ge.
Qed.
