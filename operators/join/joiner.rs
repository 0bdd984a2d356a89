//! The kinds of joins: which rows give a result, and what is made of them.

/// Makes results of rows that belong together, and of rows without a match where the kind of join asks for them.
pub(in crate::operators) trait Joiner<L: ?Sized, R: ?Sized>:
    Clone + Send + Sync + 'static
{
    /// The results.
    type Out: 'static;
    /// Whether a left row without a match gives a result.
    type OfLeft: Alone;
    /// Whether a right row without a match gives one.
    type OfRight: Alone;

    fn both(&self, left: &L, right: &R) -> Self::Out;

    /// The result of what is there on both sides, if there is one.
    #[inline]
    fn of(&self, left: Option<&L>, right: Option<&R>) -> Option<Self::Out> {
        match (left, right) {
            (Some(left), Some(right)) => Some(self.both(left, right)),
            (Some(left), None) => self.left(left),
            (None, Some(right)) => self.right(right),
            (None, None) => None,
        }
    }

    /// The result of a left row without a match.
    fn left(&self, _left: &L) -> Option<Self::Out> {
        None
    }

    /// The result of a right row without a match.
    fn right(&self, _right: &R) -> Option<Self::Out> {
        None
    }
}

/// Whether rows of one side give a result when they find no match.
pub(in crate::operators) trait Alone: Send + Sync + 'static {
    const GIVES: bool;
    /// The name of the rows in the identity of their store's values.
    const NAME: &'static str;
}

/// Rows without a match give a result.
pub(in crate::operators) enum Gives {}

impl Alone for Gives {
    const GIVES: bool = true;
    const NAME: &'static str = "rows of a join that know whether they matched";
}

/// Rows without a match give nothing.
pub(in crate::operators) enum Nothing {}

impl Alone for Nothing {
    const GIVES: bool = false;
    const NAME: &'static str = "rows of a join";
}

/// Results of matches only.
#[derive(Clone)]
pub(in crate::operators) struct Inner<F>(pub(in crate::operators) F);

/// And of left rows without one.
#[derive(Clone)]
pub(in crate::operators) struct Left<F>(pub(in crate::operators) F);

/// And of right rows without one.
#[derive(Clone)]
pub(in crate::operators) struct Right<F>(pub(in crate::operators) F);

/// And of the rows of both sides.
#[derive(Clone)]
pub(in crate::operators) struct Outer<F>(pub(in crate::operators) F);

impl<L, R, U, F> Joiner<L, R> for Inner<F>
where
    L: ?Sized,
    R: ?Sized,
    U: 'static,
    F: Fn(&L, &R) -> U + Clone + Send + Sync + 'static,
{
    type Out = U;
    type OfLeft = Nothing;
    type OfRight = Nothing;

    #[inline]
    fn both(&self, left: &L, right: &R) -> U {
        (self.0)(left, right)
    }
}

impl<L, R, U, F> Joiner<L, R> for Left<F>
where
    L: ?Sized,
    R: ?Sized,
    U: 'static,
    F: Fn(&L, Option<&R>) -> U + Clone + Send + Sync + 'static,
{
    type Out = U;
    type OfLeft = Gives;
    type OfRight = Nothing;

    #[inline]
    fn both(&self, left: &L, right: &R) -> U {
        (self.0)(left, Some(right))
    }

    fn left(&self, left: &L) -> Option<U> {
        Some((self.0)(left, None))
    }
}

impl<L, R, U, F> Joiner<L, R> for Right<F>
where
    L: ?Sized,
    R: ?Sized,
    U: 'static,
    F: Fn(Option<&L>, &R) -> U + Clone + Send + Sync + 'static,
{
    type Out = U;
    type OfLeft = Nothing;
    type OfRight = Gives;

    #[inline]
    fn both(&self, left: &L, right: &R) -> U {
        (self.0)(Some(left), right)
    }

    fn right(&self, right: &R) -> Option<U> {
        Some((self.0)(None, right))
    }
}

impl<L, R, U, F> Joiner<L, R> for Outer<F>
where
    L: ?Sized,
    R: ?Sized,
    U: 'static,
    F: Fn(Option<&L>, Option<&R>) -> U + Clone + Send + Sync + 'static,
{
    type Out = U;
    type OfLeft = Gives;
    type OfRight = Gives;

    #[inline]
    fn both(&self, left: &L, right: &R) -> U {
        (self.0)(Some(left), Some(right))
    }

    fn left(&self, left: &L) -> Option<U> {
        Some((self.0)(Some(left), None))
    }

    fn right(&self, right: &R) -> Option<U> {
        Some((self.0)(None, Some(right)))
    }
}
