//! The page of limits, made from the source: every constant whose name ends in `_MAX`, with what is said of it.
//! Knows nothing of what a limit is for.

use crate::tidy::Tree;

const HEAD: &str = "# Limits

Written by `cargo xtask docs` from the constants of the source: everything has a limit. What stands in a row of `model` or
`ledger` is told with its number when it is exceeded; limits that are settings (backlog, leases, what is remembered) are in
[settings](config.md).
";

/// A constant and what is said of it.
struct Limit {
    krate: String,
    name: String,
    value: String,
    says: String,
}

/// All limits as a page.
pub fn page(tree: &Tree) -> String {
    let mut limits: Vec<Limit> = Vec::new();
    for file in &tree.rust {
        let mut parts = file.path.components().map(|part| part.as_os_str().to_string_lossy());
        let (Some(top), Some(krate), Some(inner)) = (parts.next(), parts.next(), parts.next()) else { continue };
        // What is not in a server or worker limits nobody.
        if matches!(&*krate, "bench" | "sim") {
            continue;
        }
        if top == "crates" && inner == "src" && !file.path.to_string_lossy().contains("tests") {
            limits.extend(limits_of(&krate, &file.text));
        }
    }
    limits.sort_by(|a, b| (&a.krate, &a.says, &a.name).cmp(&(&b.krate, &b.says, &b.name)));
    let mut page = HEAD.to_owned();
    let mut krate = "";
    for limit in &limits {
        if limit.krate != krate {
            krate = &limit.krate;
            page += &format!("\n## `{krate}`\n\n| limit | number | name |\n| --- | --- | --- |\n");
        }
        page += &format!("| {} | {} | `{}` |\n", limit.says, limit.value, limit.name);
    }
    page
}

fn limits_of(krate: &str, text: &str) -> Vec<Limit> {
    let mut limits = Vec::new();
    let (mut says, mut told) = (String::new(), false);
    for line in text.lines() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("///") {
            if std::mem::take(&mut told) {
                says.clear();
            }
            says += &format!("{} ", comment.trim());
            continue;
        }
        if let Some((name, value)) = constant(line) {
            let says = says.trim().trim_end_matches('.').replace('|', "\\|");
            told = true;
            limits.push(Limit { krate: krate.to_owned(), name: name.to_owned(), value: number(value), says });
        }
        // A constant without a comment of its own belongs to the one above.
        if constant(line).is_none() && !line.starts_with("#[") {
            says.clear();
        }
    }
    limits
}

/// Name and value of a constant that is a limit.
fn constant(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.strip_suffix(';')?.split_once("const ")?;
    let (name, rest) = rest.split_once(": ")?;
    let (_, value) = rest.split_once(" = ")?;
    name.ends_with("_MAX").then_some((name, value))
}

/// A value as people read it, where it is one of the usual forms; else as it is written.
fn number(value: &str) -> String {
    for (form, unit) in [
        ("Duration::from_secs(", "s"),
        ("Duration::from_millis(", "ms"),
        ("Millis::from_secs(", "s"),
        ("Millis(", "ms"),
        ("Bytes(", "bytes"),
    ] {
        if let Some(inner) = value.strip_prefix(form).and_then(|rest| rest.strip_suffix(')')) {
            return format!("{} {unit}", number(inner));
        }
    }
    let shifted = value.split_once(" << ").and_then(|(base, by)| {
        let unit = match by {
            "10" => "Ki",
            "20" => "Mi",
            "30" => "Gi",
            _ => return None,
        };
        base.chars().all(|c| c.is_ascii_digit() || c == '_').then(|| format!("{base}{unit}"))
    });
    let plain = value.chars().all(|c| c.is_ascii_digit() || "_ *+".contains(c));
    let written = || if plain { value.replace('_', ",") } else { format!("`{value}`") };
    shifted.unwrap_or_else(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_found_with_what_is_said_of_them() {
        let text = "/// Most things,\n/// of all.\nconst THINGS_MAX: u32 = 10_000;\nconst OTHER: u32 = 1;\n\
                    /// Longest.\n#[allow(x)]\npub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);\n\
                    /// Bytes.\npub const B_MAX: usize = 16 << 20;\n";
        let found = limits_of("model", text);
        let found: Vec<(&str, &str, &str)> =
            found.iter().map(|limit| (&*limit.name, &*limit.value, &*limit.says)).collect();
        let expected = [
            ("THINGS_MAX", "10,000", "Most things, of all"),
            ("WAIT_MAX", "60 s", "Longest"),
            ("B_MAX", "16Mi", "Bytes"),
        ];
        assert_eq!(found, expected);
    }
}
