//! What the argument parser refuses, said as every other failure is: one or two lines, or one JSON object.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser as _};
use layerstone::ErrorKind;
use layerstone::path::escape_bytes;

use crate::arguments::Arguments;
use crate::exit_code;
use crate::hints::{instead_of_argument, instead_of_command, keep_likely_suggestions};
use crate::output::{Output, visible};
use crate::run::OWN_FAILURE;

/// Returns the command line's arguments, or the exit code if they are refused, which is then said, or if they ask for help or
/// the version, which is printed.
pub(crate) fn parse() -> Result<Arguments, u8> {
    let mut error = match Arguments::try_parse() {
        Ok(arguments) => return Ok(arguments),
        // `layerstone` and `layerstone project` alone ask for help.
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let words = std::env::args_os().chain(["--help".into()]);
            Arguments::try_parse_from(words).err().unwrap_or(error)
        }
        Err(error) => negative_value(std::env::args_os()).unwrap_or(error),
    };
    let json = asks_for_json(std::env::args_os());
    if !error.use_stderr() {
        return Err(print(&error, json));
    }
    let refused = explain(&mut error);
    Output::complain(ErrorKind::Invalid, &refused.message, json);
    if let (false, Some(usage)) = (json, refused.usage) {
        Output::note(&usage);
    }
    Err(if asks_for_run(std::env::args_os()) { OWN_FAILURE } else { exit_code(ErrorKind::Invalid) })
}

/// Prints help or the version, and gives the exit code.
fn print(text: &clap::Error, json: bool) -> u8 {
    match text.print().and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Output::complain(ErrorKind::Io, &format!("standard output: could not write: {error}"), json);
            exit_code(ErrorKind::Io)
        }
        _ => 0,
    }
}

/// Returns why a value such as `-1` or `-1d` is refused by the option before it. The parser takes it for an option of its own.
fn negative_value(words: impl Iterator<Item = OsString>) -> Option<clap::Error> {
    let is_negative = |word: &OsString| matches!(word.as_bytes(), [b'-', b'0'..=b'9' | b'.', ..]);
    let is_option =
        |word: &OsString| matches!(word.as_bytes(), [b'-', b'a'..=b'z', ..] | [b'-', b'-', b'a'..=b'z', ..]);
    let mut joined: Vec<OsString> = Vec::new();
    for word in words {
        match joined.last_mut().filter(|before| is_negative(&word) && is_option(before)) {
            Some(option) => {
                option.push("=");
                option.push(word);
            }
            None => joined.push(word),
        }
    }
    let error = Arguments::try_parse_from(joined).err()?;
    matches!(error.kind(), clap::error::ErrorKind::ValueValidation).then_some(error)
}

/// Whether words that could not be parsed are those of `run`, which has a code of its own for its own failures.
fn asks_for_run(words: impl Iterator<Item = OsString>) -> bool {
    let matches = Arguments::command().ignore_errors(true).try_get_matches_from(words);
    matches.is_ok_and(|matches| matches.subcommand_name() == Some("run"))
}

/// Whether words that could not be parsed have the option; clap takes none that begins with `-` for a value.
fn asks_for_json(words: impl Iterator<Item = OsString>) -> bool {
    words.take_while(|word| word != "--").any(|word| word == "--json")
}

/// How a refusal is said.
struct Refused {
    message: String,
    usage: Option<String>,
}

/// Says why the parser refused: its message as one line, without the hints that follow it, but with our own, and how the
/// command is used.
fn explain(error: &mut clap::Error) -> Refused {
    let mut program = Arguments::command();
    program.build();
    let (name, command) =
        command_of(error, &program).map_or((String::new(), None), |(name, command)| (name, Some(command)));
    keep_likely_suggestions(error, &name);
    escape_values(error);
    let mut message = match not_utf8(error, std::env::args_os()) {
        Some(words) => format!("{words} is no UTF-8, which names and options are"),
        None => one_line(error),
    };
    let hint = match (error.get(ContextKind::InvalidSubcommand), error.get(ContextKind::InvalidArg)) {
        (Some(ContextValue::String(word)), _) => instead_of_command(&name, word),
        (_, Some(ContextValue::String(word))) if error.kind() == clap::error::ErrorKind::UnknownArgument => {
            instead_of_argument(&name, word)
        }
        (_, Some(ContextValue::Strings(words))) => {
            words.iter().find_map(|word| instead_of_argument(&name, word))
        }
        _ => None,
    };
    if let Some(hint) = hint {
        message = format!("{message}; {hint}");
    }
    Refused { message, usage: command.map(|command| command.clone().render_usage().to_string()) }
}

/// Escapes the user's words in the message, which are then of one line.
fn escape_values(error: &mut clap::Error) {
    for kind in [ContextKind::InvalidSubcommand, ContextKind::InvalidArg, ContextKind::InvalidValue] {
        if let Some(ContextValue::String(word)) = error.get(kind) {
            let word = visible(word);
            error.insert(kind, ContextValue::String(word));
        }
    }
}

/// Returns the words that are refused since they are no UTF-8: others may be paths, which need not be.
fn not_utf8(error: &clap::Error, words: impl Iterator<Item = OsString>) -> Option<String> {
    if error.kind() != clap::error::ErrorKind::InvalidUtf8 {
        return None;
    }
    let words: Vec<_> = words.collect();
    let is_refused = |index: &usize| {
        let alone = words.iter().enumerate().map(|(other, word)| {
            if other == *index { word.clone() } else { word.to_string_lossy().into_owned().into() }
        });
        let outcome = Arguments::try_parse_from(alone);
        outcome.is_err_and(|error| error.kind() == clap::error::ErrorKind::InvalidUtf8)
    };
    let refused =
        (0..words.len()).filter(|index| words.get(*index).is_some_and(|word| word.to_str().is_none()));
    let refused = refused.filter(is_refused).filter_map(|index| words.get(index));
    let refused: Vec<_> = refused.map(|word| format!("'{}'", escape_bytes(word.as_bytes()))).collect();
    Some(refused.join(", ")).filter(|refused| !refused.is_empty())
}

fn one_line(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let text = rendered.strip_prefix("error: ").unwrap_or(&rendered);
    // Searched from the end, since the message has words of the user's.
    let hints = ["\n  [subcommands: ", "\n\nUsage: ", "\n\nFor more information"];
    let end = hints.iter().filter_map(|hint| text.rfind(hint)).min();
    let mut message = String::new();
    for line in end.and_then(|end| text.get(..end)).unwrap_or(text).lines().map(str::trim) {
        if line.is_empty() {
            continue;
        }
        if !message.is_empty() {
            message.push_str(if line.starts_with("tip: ") { "; " } else { " " });
        }
        message.push_str(line);
    }
    message
}

/// Returns the command in question and its words below the program's. The error's own usage names it, but shows options that
/// happened to be given as if they were needed.
fn command_of<'p>(error: &clap::Error, program: &'p clap::Command) -> Option<(String, &'p clap::Command)> {
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else { return None };
    let usage = usage.to_string();
    let (mut words, mut command) = (Vec::new(), program);
    for word in usage.split_whitespace().skip_while(|word| *word != program.get_name()).skip(1) {
        let Some(found) = command.find_subcommand(word) else { break };
        words.push(found.get_name().to_owned());
        command = found;
    }
    Some((words.join(" "), command))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &[&str]) -> (String, Option<String>) {
        let mut error = Arguments::try_parse_from([&["layerstone"], words].concat()).unwrap_err();
        let refused = explain(&mut error);
        (refused.message, refused.usage)
    }

    #[test]
    fn a_message_is_one_line_and_the_usage_that_of_the_command() {
        let cases = [
            (
                &["rm"][..],
                "the following required arguments were not provided: <IMAGES>...",
                "rm [OPTIONS] <IMAGES>...",
            ),
            (&["--store", "rm", "untag", "--json"], "the following required", "untag [OPTIONS] [NAMES]..."),
            (&["ls", "--bogus"], "unexpected argument '--bogus' found", "ls [OPTIONS] <IMAGE> [PATH]"),
            (&["project", "rm"], "the following required", "project rm [OPTIONS] <NAMES>..."),
            (&["--json"], "'layerstone' requires a subcommand", "[OPTIONS] <COMMAND>"),
            (&["project", "--json"], "'layerstone project' requires a", "project [OPTIONS] <COMMAND>"),
            (
                &["imort"],
                "unrecognized subcommand 'imort'; tip: a similar subcommand exists: 'import'",
                "[OPTIONS] <COMMAND>",
            ),
            (
                &["prune"],
                "unrecognized subcommand 'prune'; free what no image needs with",
                "[OPTIONS] <COMMAND>",
            ),
            (&["a\n\nUsage: b"], r"unrecognized subcommand 'a\n\nUsage: b'", "[OPTIONS] <COMMAND>"),
        ];
        for (words, begin, command) in cases {
            let (message, usage) = refused(words);
            assert!(message.starts_with(begin) && !message.contains('\n'), "{words:?}: {message}");
            assert_eq!(usage.unwrap(), format!("Usage: layerstone {command}"), "{words:?}");
        }
        let (message, usage) = refused(&["import", "--format", "zip", "x"]);
        assert_eq!(message, "invalid value 'zip' for '--format <FORMAT>' [possible values: dir, tar]");
        assert_eq!(usage, None);
    }

    #[test]
    fn a_negative_value_is_refused_by_its_option() {
        let refused = |words: &[&str]| {
            let words = [&["layerstone"], words].concat().into_iter().map(OsString::from);
            Some(explain(&mut negative_value(words)?).message)
        };
        for (words, message) in [
            (&["images", "--since", "-1d"][..], "an age has no '-'"),
            (&["images", "-n", "-1"], "a whole number is expected"),
            (&["import", "d", "--timeout", "-.5"], "a number of seconds is expected"),
            (&["project", "limit", "p", "--max-layer-bytes", "-1"], "expected a number of bytes"),
        ] {
            let said = refused(words).unwrap();
            assert!(said.starts_with("invalid value '-") && said.contains(message), "{words:?}: {said}");
        }
        assert_eq!(refused(&["images", "--quiet", "-1"]), None, "no value of that");
        assert_eq!(refused(&["rm", "-1"]), None);
    }

    #[test]
    fn the_command_is_known_though_its_words_are_refused() {
        let asks = |words: &[&str]| {
            assert!(Arguments::try_parse_from(words).is_err(), "{words:?}");
            asks_for_run(words.iter().map(OsString::from))
        };
        for words in [
            &["run"][..],
            &["run", "image"],
            &["--store", "rm", "run", "--bogus", "image", "true"],
            &["run", "--runtime", "none", "image", "true"],
            &["run", "--tag", "no tag", "image", "true"],
            &["run", "--disposable", "--tag", "a", "image", "true"],
        ] {
            assert!(asks(&[&["layerstone"], words].concat()), "{words:?}");
        }
        for words in [&["rm"][..], &["--store", "run", "rm"], &["tag", "--bogus", "run"], &["--bogus", "run"]]
        {
            assert!(!asks(&[&["layerstone"], words].concat()), "{words:?}");
        }
    }

    #[test]
    fn json_is_asked_for_before_the_end_of_options() {
        let asks = |words: &[&str]| asks_for_json(words.iter().map(OsString::from));
        assert!(asks(&["layerstone", "rm", "--json"]));
        assert!(!asks(&["layerstone", "rm", "--", "--json"]));
    }
}
