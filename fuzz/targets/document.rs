//! Any bytes as a document in each format: it loads or is refused, the problems can be printed, what loads can be shown
//! and its rules read back. The first byte picks the format.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use persona::rule::Rule;
use persona::{Format, SourceText, Style, load};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((first, text)) = data.split_first() else {
        return Corpus::Reject;
    };
    let format = match first {
        b'j' => Format::Json,
        b't' => Format::Toml,
        b'y' => Format::Yaml,
        _ => return Corpus::Reject,
    };
    let source = SourceText {
        name: "fuzzed",
        text,
        format,
        persona_name: Some("fuzzed"),
    };
    match load(&source) {
        Ok(loaded) => {
            let again = load(&source).map(|loaded| loaded.persona.digest).ok();
            assert_eq!(again.as_ref(), Some(&loaded.persona.digest));
            let _ = loaded.warnings.render(Style::Plain);
            assert!(serde_json::to_value(&loaded.persona).is_ok());
            for rule in loaded.persona.rules.iter() {
                let read = Rule::parse(&rule.name, &rule.text);
                assert!(read.is_ok(), "{}", rule.text);
            }
        }
        Err(problems) => {
            assert!(problems.has_errors());
            let _ = problems.render(Style::Colour);
        }
    }
    Corpus::Keep
});
