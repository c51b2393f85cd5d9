//! The versions in CHANGELOG.md, whose form is that of <https://keepachangelog.com/en/1.1.0/>.
//! Must not know the disk.

/// Checks that a version can be released: it has a section, and nothing is under `[Unreleased]`. Returns what was found.
///
/// A section without a date is a mistake only if `dated`.
///
/// # Errors
/// What is to be corrected.
pub(super) fn check(text: &str, version: &str, dated: bool) -> Result<String, String> {
    let Some(unreleased) = section(text, "Unreleased") else {
        return Err("there is no heading `## [Unreleased]`".to_owned());
    };
    let Some(Section { rest, body }) = section(text, version) else {
        return Err(format!("there is no heading `## [{version}] - YYYY-MM-DD`"));
    };
    if unreleased.body.lines().any(is_entry) {
        return Err(format!("move the entries under `## [Unreleased]` to `## [{version}]`, or raise the version"));
    }
    if !body.lines().any(is_entry) {
        return Err(format!("there is no entry under `## [{version}]`"));
    }
    match rest.strip_prefix("- ").map(str::trim) {
        Some(date) if is_date(date) => Ok(format!("{version} of {date}")),
        None if rest.is_empty() && !dated => Ok(format!("{version}; it needs its date before it is released")),
        _ => Err(format!("write the date of the release: `## [{version}] - YYYY-MM-DD`")),
    }
}

struct Section<'a> {
    /// What follows the name in the heading.
    rest: &'a str,
    body: &'a str,
}

fn section<'a>(text: &'a str, name: &str) -> Option<Section<'a>> {
    let heading = format!("## [{name}]");
    let mut sections = text.split("\n## ").skip(1);
    let found = sections.find_map(|section| section.strip_prefix(heading.strip_prefix("## ")?))?;
    let (rest, body) = found.split_once('\n').unwrap_or((found, ""));
    Some(Section { rest: rest.trim(), body })
}

fn is_entry(line: &str) -> bool {
    line.trim_start().starts_with("- ")
}

fn is_date(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let has_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    parts.iter().map(|part| part.len()).eq([4, 2, 2]) && parts.iter().all(|part| has_digits(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATED: &str =
        "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-11-29\n\n### Added\n\n- A.\n\n## [0.1.0]\n- B.\n";

    #[test]
    fn a_version_with_a_section_and_a_date_can_be_released() {
        assert_eq!(check(DATED, "0.2.0", true).unwrap(), "0.2.0 of 2026-11-29");
    }

    #[test]
    fn the_date_may_come_last() {
        assert!(check(DATED, "0.1.0", false).unwrap().contains("needs its date"));
        assert!(check(DATED, "0.1.0", true).unwrap_err().contains("## [0.1.0] - YYYY-MM-DD"));
        let odd = DATED.replace("2026-11-29", "soon");
        assert!(check(&odd, "0.2.0", false).unwrap_err().contains("write the date"));
    }

    #[test]
    fn each_mistake_is_named() {
        let refused = |text: &str, version: &str, word: &str| {
            let mistake = check(text, version, true).unwrap_err();
            assert!(mistake.contains(word), "{mistake}");
        };
        refused(DATED, "0.3.0", "no heading `## [0.3.0]");
        refused("# Changelog\n\n## [0.2.0]\n", "0.2.0", "[Unreleased]");
        let more = DATED.replace("## [Unreleased]\n", "## [Unreleased]\n\n### Fixed\n\n- C.\n");
        refused(&more, "0.2.0", "raise the version");
        refused(&DATED.replace("- A.", ""), "0.2.0", "no entry");
    }

    #[test]
    fn the_changelog_of_this_workspace_has_its_form() {
        let text = include_str!("../../../CHANGELOG.md");
        assert!(section(text, "Unreleased").is_some());
        assert!(section(text, env!("CARGO_PKG_VERSION")).is_some());
    }
}
