//! The rule language: `IF condition THEN action …`. What a persona's other keys mean is not here. The planner and the
//! agent evaluate rules; the document reader parses them.

mod ast;
mod eval;
mod print;

pub use ast::{Action, Condition, Direction, MemoryAmount, Resource, Rule};
pub(crate) use ast::{Arithmetic, Comparison, Expr, Value};
pub use eval::{Holds, Looked, Trail, Truth};
