//! What to use instead of a word that other programs know and this one does not.

use clap::error::{ContextKind, ContextValue};

mod options;
mod words;

use options::{OPTIONS, POSITIONAL};
use words::WORDS;

/// The commands that it is for (all if there are none), the words that they do not know, and what to use instead.
struct Hint(&'static [&'static str], &'static [&'static str], &'static str);

impl Hint {
    /// Returns the text of the first hint for a word that a command does not know. The command is named by its words below the
    /// program's.
    fn find(hints: &[Self], command: &str, word: &str) -> Option<&'static str> {
        // Docker has commands on images below `image`, too.
        let below_image = command.strip_prefix("image ");
        let is_for = |known: &[&str]| {
            known.is_empty()
                || known.contains(&command)
                || below_image.is_some_and(|name| known.contains(&name))
        };
        let fits =
            |known: &&str| known.strip_suffix('*').map_or(*known == word, |begin| word.starts_with(begin));
        hints.iter().find(|hint| is_for(hint.0) && hint.1.iter().any(fits)).map(|hint| hint.2)
    }
}

/// Returns what to use instead of a word that is no command below this one.
pub(crate) fn instead_of_command(command: &str, word: &str) -> Option<&'static str> {
    Hint::find(WORDS, command, word)
}

/// Returns what to use instead of an option that the command does not have, or of a word that is one too many for it.
pub(crate) fn instead_of_argument(command: &str, word: &str) -> Option<&'static str> {
    let is_option = word.starts_with(['-', '<']);
    Hint::find(OPTIONS, command, if is_option { word } else { POSITIONAL })
}

/// Takes suggestions out of a message that are no likely slips of what was typed.
pub(crate) fn keep_likely_suggestions(error: &mut clap::Error, command: &str) {
    // An option can't stand where names are expected, and a file can be called './-x'.
    error.remove(ContextKind::Suggested);
    let pairs = [
        (ContextKind::InvalidSubcommand, ContextKind::SuggestedSubcommand),
        (ContextKind::InvalidArg, ContextKind::SuggestedArg),
        (ContextKind::InvalidValue, ContextKind::SuggestedValue),
    ];
    for (typed, suggested) in pairs {
        let Some(ContextValue::String(typed)) = error.get(typed).cloned() else { continue };
        let is_likely = |suggestion: &String| {
            is_slip(&typed, suggestion)
                && instead_of_command(command, &typed).is_none()
                && instead_of_argument(command, &typed).is_none()
        };
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
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::arguments::Arguments;

    #[test]
    fn no_word_with_a_hint_is_a_command() {
        let mut program = Arguments::command();
        program.build();
        for Hint(commands, words, _) in WORDS {
            for path in *commands {
                let command = path
                    .split_whitespace()
                    .fold(&program, |command, word| command.find_subcommand(word).unwrap());
                for word in *words {
                    assert!(command.find_subcommand(word).is_none(), "{path} {word}");
                }
            }
        }
    }

    #[test]
    fn every_option_with_a_hint_is_unknown_to_a_command_that_it_is_for() {
        for Hint(commands, words, hint) in OPTIONS {
            for word in words.iter().filter(|word| word.starts_with('-')) {
                let word = word.trim_end_matches('*');
                let commands = if commands.is_empty() { &["commit"] } else { *commands };
                let is_unknown = |command: &&str| {
                    let words = ["layerstone"].into_iter().chain(command.split(' ')).chain([word]);
                    Arguments::try_parse_from(words)
                        .is_err_and(|error| error.kind() == clap::error::ErrorKind::UnknownArgument)
                        && instead_of_argument(command, word) == Some(hint)
                };
                assert!(commands.iter().any(is_unknown), "{commands:?} {word}");
            }
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
