#!/usr/bin/env bash
# A hard link in a tar of the seventh edition's format has the size of its file, and no data.
#
# Guess: readers for Node.js pass over the size of a hard link, as GNU tar, bsdtar and Python's tarfile do.
# Seen with node 20, tar-stream 3.1.7 and tar 7.5.1: both take the next header for the link's data. tar-stream ends with an error
# about a header; tar lists two of three members, leaves the third out and, unless it is strict, reports nothing.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y > npm.log
npm install --no-audit --no-fund tar-stream@3.1.7 tar@7.5.1 >> npm.log

python3 - <<'PY'
# Three members: a file, a hard link to it, a file. No field behind the name of a link's target: that is the old format.
def member(name, kind, size, target=b"", data=b""):
    header = bytearray(512)
    fields = [(0, name), (100, b"000644 \0"), (108, b"000000 \0"), (116, b"000000 \0"), (124, b"%011o " % size)]
    fields += [(136, b"00000000000 "), (148, b" " * 8), (156, kind), (157, target)]
    for offset, value in fields:
        header[offset:offset + len(value)] = value
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + bytes(-len(data) % 512)

with open("old.tar", "wb") as tar:
    tar.write(member(b"first", b"\0", 5, data=b"hello"))
    tar.write(member(b"second", b"1", 5, target=b"first"))
    tar.write(member(b"third", b"\0", 5, data=b"world"))
    tar.write(bytes(1024))
PY

cat > read.js <<'JS'
const fs = require('fs'), tar = require('tar'), stream = require('tar-stream').extract({ allowUnknownFormat: true });
const listed = [];
tar.t({ file: 'old.tar', sync: true, onReadEntry: entry => listed.push(entry.path) });
console.log('tar: ' + listed.join(' '));
const streamed = [];
stream.on('entry', (header, body, next) => { streamed.push(header.name); body.on('end', next); body.resume(); });
stream.on('finish', () => console.log('tar-stream: ' + streamed.join(' ')));
stream.on('error', () => console.log('tar-stream: ' + streamed.join(' ') + ' error'));
fs.createReadStream('old.tar').pipe(stream);
JS

{
    echo "GNU tar: $(tar -tf old.tar | xargs)"
    echo "tarfile: $(python3 -c 'import tarfile; print(*tarfile.open("old.tar").getnames())')"
    node read.js
} | tee seen
diff seen - <<'EXPECTED'
GNU tar: first second third
tarfile: first second third
tar: first second
tar-stream: first second error
EXPECTED
