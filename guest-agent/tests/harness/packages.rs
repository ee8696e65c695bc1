//! A guest with a package manager: small programs with the names and words of apt's, and an archive of five packages. A package
//! that is installed has a program of its name.

use std::fs;

use super::{Guest, debian::program};

/// What is there lies in `apt/there`, one file a package with its version; what is there for another only has a file in
/// `apt/auto`. The archive has a file each with versions, the newest first, and another with what a package needs.
const APT_GET: &str = r#"#!/bin/sh
root=${0%/usr/bin/apt-get}
db=$root/apt
echo "apt-get $*" >>"$root/calls"
simulate= fetch= verb= words=
while [ $# -gt 0 ]; do
    case $1 in
        -s) simulate=1 ;;
        -d) fetch=1 ;;
        -o) shift ;;
        -*) ;;
        *) if [ -z "$verb" ]; then verb=$1; else words="$words $1"; fi ;;
    esac
    shift
done
there() { [ -e "$db/there/$1" ]; }
locked() {
    [ -z "$simulate" ] && [ -e "$root/locked" ] || return 0
    echo "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 77 (apt-get)" >&2
    echo "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?" >&2
    exit 100
}
newest() { head -n 1 "$db/archive/$1"; }
needs() { cat "$db/needs/$1" 2>/dev/null; }
write_status() {
    for file in "$db"/there/*; do
        [ -e "$file" ] || continue
        printf 'Package: %s\nStatus: install ok installed\nArchitecture: all\nVersion: %s\n\n' "${file##*/}" "$(cat "$file")"
    done >"$root/var/lib/dpkg/status.new"
    mv "$root/var/lib/dpkg/status.new" "$root/var/lib/dpkg/status"
}
put() {
    printf '%s' "$2" >"$db/there/$1"
    printf '#!/bin/sh\n' >"$root/usr/bin/$1"
    chmod 755 "$root/usr/bin/$1"
}
install_one() { # NAME VERSION asked|needed
    for other in $(needs "$1"); do
        there "$other" || install_one "$other" "$(newest "$other")" needed
    done
    if [ -n "$simulate" ]; then
        old=$(cat "$db/there/$1" 2>/dev/null)
        echo "Inst $1${old:+ [$old]} ($2 Test:1 [all])"
        for other in $(cat "$db/conflicts/$1" 2>/dev/null); do echo "Remv $other [1]"; done
        return
    fi
    if [ "$3" = needed ] && ! there "$1"; then : >"$db/auto/$1"; fi
    put "$1" "$2"
    if [ -e "$root/broken.$1" ]; then
        write_status
        [ ! -e "$root/locks.$1" ] || : >"$root/locked"
        echo "E: Sub-process /usr/bin/dpkg returned an error code (1)" >&2
        exit 100
    fi
}
case $verb in
    update) ;;
    install)
        if [ -n "$fetch" ]; then
            [ ! -e "$root/no-network" ] || { echo "E: Unable to fetch some archives" >&2; exit 100; }
            exit 0
        fi
        locked
        for word in $words; do install_one "${word%%=*}" "${word#*=}" asked; done
        [ -n "$simulate" ] || write_status ;;
    autoremove)
        going=
        again=1
        while [ -n "$again" ]; do
            again=
            for file in "$db"/auto/*; do
                name=${file##*/}
                there "$name" || continue
                case " $going " in *" $name "*) continue ;; esac
                needed=
                for other in "$db"/there/*; do
                    other=${other##*/}
                    case " $going " in *" $other "*) continue ;; esac
                    case " $(needs "$other" | tr '\n' ' ') " in *" $name "*) needed=1 ;; esac
                done
                if [ -z "$needed" ]; then going="$going $name"; again=1; fi
            done
        done
        for name in $going; do echo "Remv $name [1]"; done ;;
    remove)
        again=1
        while [ -n "$again" ]; do
            again=
            for file in "$db"/there/*; do
                name=${file##*/}
                case " $words " in *" $name "*) continue ;; esac
                for other in $(needs "$name"); do
                    case " $words " in *" $other "*) words="$words $name"; again=1 ;; esac
                done
            done
        done
        if [ -n "$simulate" ]; then
            for name in $words; do echo "Remv $name [1]"; done
            exit 0
        fi
        locked
        for name in $words; do rm -f "$db/there/$name" "$db/auto/$name" "$root/usr/bin/$name"; done
        write_status ;;
    *) exit 1 ;;
esac
"#;

const APT_CACHE: &str = r#"#!/bin/sh
root=${0%/usr/bin/apt-cache}
shift
for name; do
    [ ! -e "$root/apt/archive/$name" ] || while read -r version; do
        echo " $name | $version | http://archive.test stable/main all Packages"
    done <"$root/apt/archive/$name"
done
"#;

const APT_MARK: &str = r#"#!/bin/sh
root=${0%/usr/bin/apt-mark}
echo "apt-mark $*" >>"$root/calls"
verb=$1
shift
for name; do
    if [ "$verb" = auto ]; then : >"$root/apt/auto/$name"; else rm -f "$root/apt/auto/$name"; fi
done
"#;

/// `site` needs `server`, which needs `library`; `tool` needs `library`, too; `old` is there in its version 1.
pub fn with_packages(guest: &Guest) {
    for directory in ["there", "auto", "archive", "needs", "conflicts"] {
        fs::create_dir_all(guest.path("apt").join(directory)).unwrap();
    }
    fs::create_dir_all(guest.path("var/lib/dpkg")).unwrap();
    for (name, versions, needs) in [
        ("site", "1-1\n", "server\n"),
        ("server", "2.4.10-1\n2.2-1\n", "library\n"),
        ("library", "1.0-1\n", ""),
        ("tool", "5-1\n", "library\n"),
        ("old", "2-1\n1-1\n", ""),
    ] {
        guest.write(&format!("apt/archive/{name}"), versions);
        guest.write(&format!("apt/needs/{name}"), needs);
    }
    program(guest, "usr/bin/apt-get", APT_GET);
    program(guest, "usr/bin/apt-cache", APT_CACHE);
    program(guest, "usr/bin/apt-mark", APT_MARK);
    program(guest, "usr/bin/dpkg", "#!/bin/sh\n");
    by_hand(guest, &["install", "old=1-1"]);
}

/// What somebody in the guest does with its package manager.
pub fn by_hand(guest: &Guest, words: &[&str]) {
    let done = std::process::Command::new(guest.path("usr/bin/apt-get"))
        .args(words)
        .status();
    assert!(done.unwrap().success());
}

/// Packages that are there, with versions and whether each is there for another only.
pub fn packages(guest: &Guest) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(guest.path("apt/there"))
        .unwrap()
        .map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let version = guest.read(&format!("apt/there/{name}")).unwrap();
            let auto = guest.path(&format!("apt/auto/{name}")).exists();
            format!("{name} {version}{}", if auto { " auto" } else { "" })
        })
        .collect();
    found.sort();
    found
}
