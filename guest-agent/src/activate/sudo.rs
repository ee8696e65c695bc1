//! sudo's own PATH with the links of overridden commands first. sudo takes no PATH from who calls it where the guest's owner
//! set a `secure_path`, so it gets the owner's with one directory before it, in a file of its own beside his. `routing` writes
//! it and takes it away again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Read by sudo where the owner's file says so. A name with a point in it would be left out.
pub(super) const SUDOERS_D: &str = "/etc/sudoers.d/51-virt-persona-commands";
/// The owner's.
const SUDOERS: &str = "/etc/sudoers";
/// sudo wants it like this.
pub(super) const MODE: u32 = 0o440;

/// The drop-in for this directory of links; nothing where sudo is not there, where it takes PATH from who calls it, or where
/// it cannot be seen what the owner wants. Then a command of sudo is the usual one, which is no less than without a persona.
pub(super) fn drop_in(root: &Path, mark: &str, links: &str) -> io::Result<Option<Vec<u8>>> {
    let under = |path: &str| root.join(path.trim_start_matches('/'));
    let Some(text) = text_of(&under(SUDOERS))? else {
        return Ok(None);
    };
    let own = under(SUDOERS_D);
    let directory = own.parent().map(Path::to_owned).unwrap_or_default();
    for other in others(&directory, &own)? {
        // Which of two holds depends on their names, and the owner's must.
        if text_of(&other)?.is_none_or(|text| text.contains("secure_path")) {
            return Ok(None);
        }
    }
    Ok(owners_path(&text)
        .map(|path| format!("{mark}\nDefaults secure_path=\"{links}:{path}\"\n").into_bytes()))
}

/// The `secure_path` that holds for everybody, where it is said once, in plain letters, and drop-ins are read after it.
fn owners_path(sudoers: &str) -> Option<&str> {
    let lines = sudoers.lines().map(str::trim);
    let mut found = None;
    let mut drop_ins = false;
    for line in lines {
        if let Some(directory) = line
            .strip_prefix("@includedir")
            .or_else(|| line.strip_prefix("#includedir"))
        {
            drop_ins |= directory.trim() == "/etc/sudoers.d";
        } else if line.contains("secure_path") && !line.starts_with('#') {
            // A second one, or one after the drop-ins, is more than this understands.
            if found.is_some() || drop_ins {
                return None;
            }
            found = Some(plain_path(line)?);
        }
    }
    found.filter(|_| drop_ins)
}

/// The value of `Defaults secure_path="..."` without anything else on the line.
fn plain_path(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("Defaults")?;
    // `Defaults:user` and the like hold for some alone.
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let value = rest.strip_prefix("secure_path")?.trim_start();
    let value = value.strip_prefix('=')?.trim();
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => value,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:._-+".contains(&byte);
    (!value.is_empty() && value.bytes().all(plain)).then_some(value)
}

fn text_of(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The other files of the directory.
fn others(directory: &Path, own: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut others = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path != own && path.is_file() {
            others.push(path);
        }
    }
    Ok(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_s_path_is_found_where_it_is_plain() {
        let debian = "Defaults\tenv_reset\nDefaults\tsecure_path=\"/usr/sbin:/usr/bin\"\nroot ALL=(ALL) ALL\n@includedir /etc/sudoers.d\n";
        assert_eq!(owners_path(debian), Some("/usr/sbin:/usr/bin"));
        let fedora = "Defaults    secure_path = /sbin:/bin\n#includedir /etc/sudoers.d\n";
        assert_eq!(owners_path(fedora), Some("/sbin:/bin"));
        for unclear in [
            "@includedir /etc/sudoers.d\n",
            "Defaults secure_path=/bin\n",
            "# Defaults secure_path=/bin\n@includedir /etc/sudoers.d\n",
            "Defaults:ada secure_path=/bin\n@includedir /etc/sudoers.d\n",
            "Defaults secure_path=/bin, env_reset\n@includedir /etc/sudoers.d\n",
            "Defaults secure_path=\"/b\\\"in\"\n@includedir /etc/sudoers.d\n",
            "Defaults !secure_path\n@includedir /etc/sudoers.d\n",
            "Defaults secure_path=/a\nDefaults secure_path=/b\n@includedir /etc/sudoers.d\n",
            "@includedir /etc/sudoers.d\nDefaults secure_path=/bin\n",
            "Defaults secure_path=/bin\n@includedir /etc/other.d\n",
        ] {
            assert_eq!(owners_path(unclear), None, "{unclear}");
        }
    }

    #[test]
    fn a_drop_in_of_the_owner_goes_first() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let made = || drop_in(root.path(), "# mark", "/links").unwrap();
        assert_eq!(made(), None);
        write(
            "etc/sudoers",
            "Defaults secure_path=\"/bin\"\n@includedir /etc/sudoers.d\n",
        );
        let ours = b"# mark\nDefaults secure_path=\"/links:/bin\"\n";
        assert_eq!(made().as_deref(), Some(ours.as_slice()));
        write("etc/sudoers.d/README", "nothing\n");
        write("etc/sudoers.d/51-virt-persona-commands", "secure_path\n");
        assert_eq!(made().as_deref(), Some(ours.as_slice()));
        write("etc/sudoers.d/site", "Defaults secure_path=/opt/bin\n");
        assert_eq!(made(), None);
    }
}
