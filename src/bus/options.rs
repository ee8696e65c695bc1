//! The `a{sv}` options that end the arguments of every method. An option that a method does not know is refused by
//! name, so that a misspelt one is not silently without effect.

use std::collections::HashMap;

use zbus::{OwnedVariant, Variant};

use super::error::Failure;
use crate::command::Refusal;
use crate::view::DocumentFormat;

/// Options that are not taken yet.
pub(super) struct Options(HashMap<String, OwnedVariant>);

impl Options {
    pub(super) fn new(options: HashMap<String, OwnedVariant>) -> Self {
        Self(options)
    }

    /// Takes a text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Failure> {
        self.take(name, "a string", |value| match value {
            Variant::Str(text) => Some(text.as_str().to_owned()),
            _ => None,
        })
    }

    /// Takes a truth value; absent is false.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Failure> {
        let flag = self.take(name, "a boolean", |value| match value {
            Variant::Bool(truth) => Some(*truth),
            _ => None,
        })?;
        Ok(flag.unwrap_or(false))
    }

    /// Takes a whole number of any D-Bus type that `N` can hold.
    pub(super) fn number<N: TryFrom<i128>>(&mut self, name: &str) -> Result<Option<N>, Failure> {
        let kind = format!("a whole number ({})", std::any::type_name::<N>());
        self.take(name, &kind, |value| {
            let number = match value {
                Variant::U8(n) => i128::from(*n),
                Variant::I16(n) => i128::from(*n),
                Variant::U16(n) => i128::from(*n),
                Variant::I32(n) => i128::from(*n),
                Variant::U32(n) => i128::from(*n),
                Variant::I64(n) => i128::from(*n),
                Variant::U64(n) => i128::from(*n),
                _ => return None,
            };
            N::try_from(number).ok()
        })
    }

    /// Takes a document format.
    pub(super) fn format(&mut self) -> Result<Option<DocumentFormat>, Failure> {
        self.take("format", "`yaml`, `json` or `toml`", |value| match value {
            Variant::Str(text) if text.as_str() == "yaml" => Some(DocumentFormat::Yaml),
            Variant::Str(text) if text.as_str() == "json" => Some(DocumentFormat::Json),
            Variant::Str(text) if text.as_str() == "toml" => Some(DocumentFormat::Toml),
            _ => None,
        })
    }

    /// Refuses what is left.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.0.into_keys().min() {
            None => Ok(()),
            Some(name) => Err(refuse(&name, "this method has no such option".to_owned())),
        }
    }

    fn take<T>(
        &mut self,
        name: &str,
        kind: &str,
        read: impl FnOnce(&Variant<'_>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(value) = self.0.remove(name) else {
            return Ok(None);
        };
        match read(&value) {
            Some(value) => Ok(Some(value)),
            None => Err(refuse(name, format!("it must be {kind}, not {:?}", *value))),
        }
    }
}

fn refuse(name: &str, reason: String) -> Failure {
    Failure::from(Refusal::BadArgument {
        argument: format!("options[{name}]"),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, Variant<'static>)]) -> Options {
        Options::new(
            pairs
                .iter()
                .map(|(key, value)| {
                    (
                        (*key).to_owned(),
                        OwnedVariant::try_from(value).expect("plain"),
                    )
                })
                .collect(),
        )
    }

    #[test]
    fn an_option_of_any_whole_number_type_is_taken_when_it_fits() {
        let read = |value: Variant<'static>| options(&[("n", value)]).number::<u32>("n").ok();
        assert_eq!(read(Variant::from(7_u64)), Some(Some(7)));
        assert_eq!(read(Variant::from(7_i32)), Some(Some(7)));
        assert_eq!(read(Variant::from(-7_i32)), None);
        assert_eq!(read(Variant::from(u64::MAX)), None);
        assert_eq!(read(Variant::from("7")), None);
    }

    #[test]
    fn an_unknown_option_is_refused_by_name() {
        let mut given = options(&[
            ("dry_run", Variant::from(true)),
            ("dryrun", Variant::from(true)),
        ]);
        assert!(given.flag("dry_run").expect("a boolean"));
        let failure = given.finish().expect_err("one is left");
        assert!(failure.to_string().contains("options[dryrun]"), "{failure}");
    }
}
