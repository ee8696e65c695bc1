//! Plugins for settings, each of which keeps its setting in a file.

use std::collections::BTreeMap;

use super::{Guest, debian::program};

/// Keeps its setting in a file, and says which verbs it was called with. `WHEN` stands for what is done before anything else.
const PLAIN: &str = r#"#!/bin/sh
root=${0%/etc/virt-persona/plugins.d/*}
key=${0##*/}
file=$root/etc/of.$key
document=$(cat)
echo "$1" >>"$root/verbs.$key"
text() { printf '%s' "$document" | sed -n "s/.*\"$1\":\[\{0,1\}\"\([a-z]*\)\".*/\1/p"; }
now() { if [ -e "$file" ]; then cat "$file"; fi; }
WHEN
case $1 in
    probe | verify) printf '{"state":"%s"}\n' "$(now)" ;;
    plan) printf '{"state":"%s"}\n' "$(text values)" ;;
    apply | undo)
        state=$(text state)
        if [ -n "$state" ]; then printf '%s' "$state" >"$file"; else rm -f "$file"; fi
        echo '{}' ;;
esac
"#;

/// Puts a plugin for a key there, which does this first.
pub fn plugin(guest: &Guest, key: &str, when: &str) {
    let path = format!("etc/virt-persona/plugins.d/{key}");
    program(guest, &path, &PLAIN.replace("WHEN", when));
}

/// Values as a persona has them.
pub fn by_key(values: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
    let value = |(key, value): &(&str, &str)| ((*key).to_owned(), vec![(*value).to_owned()]);
    values.iter().map(value).collect()
}
