//! What to use instead of a word that other programs know and this one does not.

use clap::error::{ContextKind, ContextValue};

/// Words of container programs and of version control, and what does their work here.
const HINTS: &[(&[&str], &str)] = &[
    (
        &["pull", "search", "fetch", "clone"],
        "registries are not supported; import a root file system: 'layerstone import FILE --tag NAME'",
    ),
    (
        &["push", "publish"],
        "registries are not supported; write a tar: 'layerstone export IMAGE --output FILE'",
    ),
    (&["login", "logout", "auth"], "registries are not supported, so there is nothing to log in to"),
    (&["save"], "write a tar of an image with 'layerstone export IMAGE --output FILE'"),
    (&["load"], "import a root file system tar with 'layerstone import FILE --tag NAME'"),
    (
        &["build", "buildx", "builder"],
        "change an image by commands: 'layerstone run IMAGE --tag NAME -- COMMAND'",
    ),
    (
        &["mount", "umount", "unmount", "create", "new", "fork"],
        "make a writable copy of an image with 'layerstone workspace create IMAGE', or files with 'layerstone checkout'",
    ),
    (
        &["cp", "copy", "download"],
        "use 'layerstone cat IMAGE PATH', or 'layerstone checkout IMAGE DIRECTORY'",
    ),
    (&["prune", "system", "clean"], "free what no image needs with 'layerstone gc'"),
    (
        &["exec", "start", "shell", "sh", "attach", "container"],
        "run a command in an image with 'layerstone run IMAGE -- COMMAND'",
    ),
    (
        &["stop", "kill", "restart", "pause", "unpause", "wait", "logs", "top", "stats"],
        "commands run only as long as 'layerstone run' does; 'layerstone workspace ls' lists workspaces",
    ),
    (&["list"], "list images with 'layerstone images', a directory of one with 'layerstone ls IMAGE'"),
    (&["log", "parents"], "show an image's steps with 'layerstone history IMAGE'"),
    (
        &["show", "info", "status", "stat", "df"],
        "show images with 'layerstone images' and 'layerstone inspect IMAGE'",
    ),
    (&["fsck", "check", "scrub"], "check the store with 'layerstone verify'"),
    (&["restore", "extract", "unpack"], "write an image as files with 'layerstone checkout IMAGE DIRECTORY'"),
    (&["add", "snapshot", "backup"], "make an image with 'layerstone import DIRECTORY --tag NAME'"),
    (&["rename", "mv"], "tag the image with its new name, then 'layerstone untag' the old one"),
    (&["version"], "print the version with 'layerstone --version'"),
];

/// What to use instead of a word that is no command.
pub(crate) fn hint(word: &str) -> Option<&'static str> {
    HINTS.iter().find(|(words, _)| words.contains(&word)).map(|(_, hint)| *hint)
}

/// Takes suggestions out of a message that are no likely slips of what was typed.
pub(crate) fn keep_likely_suggestions(error: &mut clap::Error) {
    let pairs = [
        (ContextKind::InvalidSubcommand, ContextKind::SuggestedSubcommand),
        (ContextKind::InvalidArg, ContextKind::SuggestedArg),
        (ContextKind::InvalidValue, ContextKind::SuggestedValue),
    ];
    for (typed, suggested) in pairs {
        let Some(ContextValue::String(typed)) = error.get(typed).cloned() else { continue };
        let is_likely = |suggestion: &String| is_slip(&typed, suggestion) && hint(&typed).is_none();
        match error.remove(suggested) {
            Some(ContextValue::String(suggestion)) if is_likely(&suggestion) => {
                error.insert(suggested, ContextValue::String(suggestion));
            }
            Some(ContextValue::Strings(mut suggestions)) => {
                suggestions.retain(is_likely);
                if !suggestions.is_empty() {
                    error.insert(suggested, ContextValue::Strings(suggestions));
                }
            }
            _ => {}
        }
    }
}

/// Whether one word may stand for the other by a slip of the finger: one in three letters at most.
fn is_slip(typed: &str, meant: &str) -> bool {
    let letters = |word: &str| word.trim_start_matches('-').to_owned();
    let (typed, meant) = (letters(typed), letters(meant));
    strsim::osa_distance(&typed, &meant) <= (meant.chars().count() / 3).max(1)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::arguments::Arguments;

    #[test]
    fn no_word_with_a_hint_is_a_command() {
        let program = Arguments::command();
        for word in HINTS.iter().flat_map(|(words, _)| *words) {
            assert!(program.find_subcommand(word).is_none(), "{word}");
        }
    }

    #[test]
    fn slips_are_told_from_other_words() {
        for (typed, meant) in
            [("imort", "import"), ("chekcout", "checkout"), ("--taag", "--tag"), ("rn", "rm")]
        {
            assert!(is_slip(typed, meant), "{typed}");
        }
        for (typed, meant) in [("prune", "run"), ("mount", "import"), ("mount", "commit"), ("ps", "rm")] {
            assert!(!is_slip(typed, meant), "{typed}");
        }
    }
}
