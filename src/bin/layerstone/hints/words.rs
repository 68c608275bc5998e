//! Words of container programs and of version control that are no commands here.

use super::Hint;

/// The commands on images, which Docker has below `image`, too.
const TOP: &[&str] = &["", "image"];

pub(super) const WORDS: &[Hint] = &[
    Hint(
        TOP,
        &["pull", "search", "fetch", "clone"],
        "registries are not supported; import a root file system: 'layerstone import FILE --tag NAME'",
    ),
    Hint(
        TOP,
        &["push", "publish"],
        "registries are not supported; write a tar: 'layerstone export IMAGE --output FILE'",
    ),
    Hint(
        TOP,
        &["login", "logout", "auth", "whoami"],
        "registries are not supported, so there is nothing to log in to",
    ),
    Hint(TOP, &["save"], "write a tar of an image with 'layerstone export IMAGE --output FILE'"),
    Hint(TOP, &["load"], "import a root file system tar with 'layerstone import FILE --tag NAME'"),
    Hint(
        TOP,
        &["build", "buildx", "builder", "edit"],
        "change an image by commands: 'layerstone run IMAGE --tag NAME -- COMMAND'",
    ),
    Hint(
        TOP,
        &["mount", "umount", "unmount", "create", "new", "fork", "session", "use"],
        "make a writable copy of an image with 'layerstone workspace create IMAGE', or files with 'layerstone checkout'",
    ),
    Hint(
        TOP,
        &["cp", "copy", "download"],
        "use 'layerstone cat IMAGE PATH', or 'layerstone checkout IMAGE DIRECTORY'",
    ),
    Hint(
        TOP,
        &["file", "files", "upload", "volume", "volumes"],
        "put files into a writable copy of an image, 'layerstone workspace create IMAGE', and commit it",
    ),
    Hint(
        TOP,
        &["prune", "system", "clean", "cleanup", "purge", "compact", "vacuum", "optimize"],
        "free what no image needs with 'layerstone gc'",
    ),
    Hint(
        TOP,
        &["exec", "start", "shell", "sh", "attach"],
        "run a command in an image with 'layerstone run IMAGE -- COMMAND'",
    ),
    Hint(
        TOP,
        &["container", "containers"],
        "there are no containers: 'layerstone run IMAGE -- COMMAND' makes an image, 'layerstone workspace' has writable copies",
    ),
    Hint(
        TOP,
        &[
            "stop",
            "kill",
            "restart",
            "pause",
            "unpause",
            "wait",
            "logs",
            "top",
            "stats",
            "op",
            "ops",
            "operation",
            "operations",
        ],
        "commands run only as long as 'layerstone run' does; 'layerstone workspace ls' lists workspaces",
    ),
    Hint(
        &[""],
        &["list", "snapshots"],
        "list images with 'layerstone images', a directory of one with 'layerstone ls IMAGE'",
    ),
    Hint(
        TOP,
        &["grep", "find"],
        "search files: 'layerstone checkout IMAGE DIRECTORY', or 'layerstone cat IMAGE PATH | grep TEXT'",
    ),
    Hint(TOP, &["cd", "pwd"], "there is no current directory; name the path: 'layerstone ls IMAGE PATH'"),
    Hint(
        TOP,
        &["env", "config", "set"],
        "an image has no variables; 'layerstone run --env NAME=VALUE' sets them for a command",
    ),
    Hint(TOP, &["tags"], "list images with their tags: 'layerstone images'"),
    Hint(TOP, &["workspaces", "sessions"], "list workspaces with 'layerstone workspace ls'"),
    Hint(TOP, &["projects"], "list projects with 'layerstone project ls'"),
    Hint(TOP, &["log", "parents"], "show an image's steps with 'layerstone history IMAGE'"),
    Hint(
        TOP,
        &["show", "info", "status", "stat", "df", "du", "describe"],
        "show images with 'layerstone images' and 'layerstone inspect IMAGE'",
    ),
    Hint(TOP, &["fsck", "check", "scrub"], "check the store with 'layerstone verify'"),
    Hint(
        TOP,
        &["restore", "extract", "unpack"],
        "write an image as files with 'layerstone checkout IMAGE DIRECTORY'",
    ),
    Hint(TOP, &["add", "snapshot", "backup"], "make an image with 'layerstone import DIRECTORY --tag NAME'"),
    Hint(TOP, &["forget"], "remove tags and images with 'layerstone rm'"),
    Hint(
        TOP,
        &["rename", "mv", "retag", "branch"],
        "tag the image with its new name; 'layerstone untag' removes the old one",
    ),
    Hint(
        TOP,
        &["rollback", "revert", "reset", "undo"],
        "images never change: tag an earlier one of 'layerstone history IMAGE' again",
    ),
    Hint(TOP, &["version"], "print the version with 'layerstone --version'"),
    Hint(
        &["workspace"],
        &["new", "add", "fork", "clone", "make"],
        "make one with 'layerstone workspace create IMAGE'",
    ),
    Hint(
        &["workspace"],
        &["mount", "start", "enter", "open", "cd", "use", "show", "inspect", "info"],
        "'layerstone workspace path NAME' mounts one and prints its directory; 'layerstone workspace ls' lists all",
    ),
    Hint(
        &["workspace"],
        &["exec", "run", "sh", "shell"],
        "work in the directory that 'layerstone workspace path NAME' prints, or run a command in an image with 'layerstone run'",
    ),
    Hint(
        &["workspace"],
        &["save", "end", "stop", "umount", "unmount", "close"],
        "end one with 'layerstone workspace commit NAME', which keeps what was changed, or 'layerstone workspace discard NAME'",
    ),
    Hint(&["project"], &["new", "add", "make", "init"], "make one with 'layerstone project create NAME'"),
    Hint(
        &["project"],
        &["use", "switch", "select", "set"],
        "name the project with --project or LAYERSTONE_PROJECT",
    ),
    Hint(
        &["project"],
        &["show", "info", "inspect", "status"],
        "'layerstone project ls' shows what each project has",
    ),
    Hint(&["project"], &["quota", "limits", "update"], "set limits with 'layerstone project limit NAME'"),
];
