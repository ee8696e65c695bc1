//! In which order bases lie: depth first, for each base in the order of `extends` what it builds on and then itself, each
//! once, at its first place. So a base lies below whatever builds on it, and a later base over an earlier one. How a
//! base is found is its caller's business.

/// The most that personas build one on the other: deeper, nobody could say where a value is from.
pub const DEEPEST_LINEAGE: usize = 16;
/// The most bases of one persona, with those of its bases.
pub const LARGEST_LINEAGE: usize = 64;

/// Why bases come to no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineageError<I, E> {
    /// They build on each other: from one on to itself.
    Circle(Vec<I>),
    /// They are more than [`DEEPEST_LINEAGE`] one on the other, or more than [`LARGEST_LINEAGE`] in all.
    TooDeep,
    /// One was not found.
    NotFound(E),
}

/// What `start`, which names `extends`, builds on, the lowest first and without itself. `look_up` is told who names a
/// base, and gives what the base is and what it names itself.
///
/// # Errors
/// See [`LineageError`].
pub fn lineage<I: Clone + PartialEq, R, E>(
    start: I,
    extends: &[R],
    look_up: impl FnMut(&I, &R) -> Result<(I, Vec<R>), E>,
) -> Result<Vec<I>, LineageError<I, E>> {
    let mut walk = Walk {
        look_up,
        way: vec![start],
        found: Vec::new(),
    };
    walk.below(extends)?;
    Ok(walk.found)
}

struct Walk<I, F> {
    look_up: F,
    /// From the persona down to where the walk is; never empty.
    way: Vec<I>,
    found: Vec<I>,
}

impl<I: Clone + PartialEq, F> Walk<I, F> {
    fn below<R, E>(&mut self, extends: &[R]) -> Result<(), LineageError<I, E>>
    where
        F: FnMut(&I, &R) -> Result<(I, Vec<R>), E>,
    {
        let who = self.way[self.way.len() - 1].clone();
        for reference in extends {
            let (id, further) = (self.look_up)(&who, reference).map_err(LineageError::NotFound)?;
            if let Some(start) = self.way.iter().position(|other| *other == id) {
                let mut circle = self.way[start..].to_vec();
                circle.push(id);
                return Err(LineageError::Circle(circle));
            }
            if self.found.contains(&id) {
                continue;
            }
            if self.way.len() > DEEPEST_LINEAGE || self.found.len() >= LARGEST_LINEAGE {
                return Err(LineageError::TooDeep);
            }
            self.way.push(id.clone());
            self.below(&further)?;
            self.way.pop();
            self.found.push(id);
        }
        Ok(())
    }
}
