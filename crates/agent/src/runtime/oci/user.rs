//! Who a container's first process is: names are looked up in the image, never on the machine.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

/// Largest list of users or groups that is read, in bytes.
const LIST_BYTES_MAX: u64 = 1 << 20;

/// A user in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Other groups that it is in.
    pub(super) groups: Vec<u32>,
    pub(super) home: Option<String>,
}

/// Looks a user up in an image: `name`, `uid`, `name:group`, `uid:gid`; empty for root.
pub(super) fn resolve(rootfs: &Path, user: &str) -> Result<User, String> {
    let read = |path| read_inside(rootfs, path).unwrap_or_default();
    find(user, &read("etc/passwd"), &read("etc/group"))
}

/// A file of an image; links in it lead to the image only.
fn read_inside(rootfs: &Path, path: &str) -> io::Result<String> {
    let root = openat(CWD, rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?);
    let mut bytes = Vec::new();
    file.take(LIST_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn find(wanted: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (name, group_name) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (wanted, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number: Option<u32> = name.parse().ok();
    let lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut lines = lines.filter(|fields| fields.len() >= 6);
    let line = lines.find(|fields| match number {
        Some(number) => fields[2].parse() == Ok(number),
        None => fields[0] == name,
    });
    let (uid, own_gid, home, login) = match (&line, number) {
        (Some(fields), _) => {
            let numbers = (fields[2].parse(), fields[3].parse());
            let (Ok(uid), Ok(gid)) = numbers else {
                return Err(format!("the image's /etc/passwd has no numbers for {name}"));
            };
            (uid, gid, Some(fields[5].to_owned()), Some(fields[0]))
        }
        (None, Some(number)) => (number, 0, None, None),
        (None, None) => return Err(format!("there is no user '{name}' in the image's /etc/passwd; give a number")),
    };
    let groups = || group.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 3);
    let gid = match group_name.filter(|group| !group.is_empty()) {
        None => own_gid,
        Some(group) => match (group.parse(), groups().find(|fields| fields[0] == group)) {
            (Ok(number), _) => number,
            (_, Some(fields)) => {
                fields[2].parse().map_err(|_| format!("the image's /etc/group has no number for {group}"))?
            }
            _ => return Err(format!("there is no group '{group}' in the image's /etc/group; give a number")),
        },
    };
    let member = |fields: &Vec<&str>| {
        login.is_some_and(|login| fields.get(3).is_some_and(|all| all.split(',').any(|one| one == login)))
    };
    // A group that is named is the only one.
    let other = if group_name.is_some() {
        Vec::new()
    } else {
        groups().filter(member).filter_map(|f| f[2].parse().ok()).collect()
    };
    Ok(User { uid, gid, groups: other, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100::/home/ann:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\naudio:x:29:bob,ann\n";

    #[test]
    fn names_and_numbers() {
        let user = |uid, gid, groups: &[u32], home: Option<&str>| {
            Ok(User { uid, gid, groups: groups.to_vec(), home: home.map(str::to_owned) })
        };
        for (wanted, expected) in [
            ("", user(0, 0, &[], Some("/root"))),
            ("ann", user(1000, 100, &[29], Some("/home/ann"))),
            ("1000", user(1000, 100, &[29], Some("/home/ann"))),
            ("ann:audio", user(1000, 29, &[], Some("/home/ann"))),
            ("77", user(77, 0, &[], None)),
            ("77:88", user(77, 88, &[], None)),
        ] {
            assert_eq!(find(wanted, PASSWD, GROUP), expected, "{wanted}");
        }
        for wanted in ["eve", "ann:nobody", "-1"] {
            assert!(find(wanted, PASSWD, GROUP).is_err(), "{wanted}");
        }
    }
}
