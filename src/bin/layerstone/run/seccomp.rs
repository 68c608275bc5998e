//! A filter of system calls that keeps a command from typing into the terminal that it shares with its user.
//!
//! A character that is put into a terminal's input is read by the user's shell once the command has ended. Kernels since 6.2
//! can forbid that to all (`dev.tty.legacy_tiocsti`); a session of its own would forbid it, too, but take the command's job
//! control.

use serde_json::{Value, json};

/// The requests of `ioctl` that put text into a terminal's input: `TIOCSTI`, and `TIOCLINUX` that pastes.
const REFUSED: [u32; 2] = [0x5412, 0x541C];

/// `ioctl` in each kind of system calls that programs may use on this machine: the kernel's number of the kind, and the call's.
#[cfg(target_arch = "x86_64")]
const CALLS: &[(u32, u32)] = &[(0xC000_003E, 16), (0xC000_003E, 0x4000_0202), (0x4000_0003, 54)];
#[cfg(target_arch = "aarch64")]
const CALLS: &[(u32, u32)] = &[(0xC000_00B7, 29), (0x4000_0028, 54)];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const CALLS: &[(u32, u32)] = &[];

/// The same kinds by the names that runtimes use.
#[cfg(target_arch = "x86_64")]
const KINDS: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_X86"];
#[cfg(target_arch = "aarch64")]
const KINDS: &[&str] = &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const KINDS: &[&str] = &[];

/// Where what is looked at lies in the data that a filter gets. Of the request the kernel takes the low half.
const CALL: u32 = 0;
const KIND: u32 = 4;
const REQUEST: u32 = if cfg!(target_endian = "little") { 24 } else { 28 };

const ALLOW: u32 = 0x7FFF_0000;
/// Fails with `EPERM`.
const REFUSE: u32 = 0x0005_0001;

/// One instruction: its code, how many are skipped if it holds and if not, and its number.
type Instruction = (u16, u8, u8, u32);

fn load(offset: u32) -> Instruction {
    (0x20, 0, 0, offset)
}

fn equals(number: u32, if_so: u8, if_not: u8) -> Instruction {
    (0x15, if_so, if_not, number)
}

fn end(action: u32) -> Instruction {
    (0x06, 0, 0, action)
}

/// The filter as the kernel takes it; none where it is not known how calls are made.
pub(super) fn program() -> Option<Vec<u8>> {
    let mut instructions = Vec::new();
    for (index, (kind, call)) in CALLS.iter().enumerate() {
        // Over the other kinds and the first end to where the request is looked at.
        let to_request = u8::try_from(4 * (CALLS.len() - index - 1) + 1).ok()?;
        instructions.extend([load(KIND), equals(*kind, 0, 2), load(CALL), equals(*call, to_request, 0)]);
    }
    let [first, second] = REFUSED;
    instructions.extend([end(ALLOW), load(REQUEST), equals(first, 2, 0), equals(second, 1, 0)]);
    instructions.extend([end(ALLOW), end(REFUSE)]);
    let bytes = |(code, if_so, if_not, number): Instruction| {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend([if_so, if_not]);
        bytes.extend(number.to_ne_bytes());
        bytes
    };
    (!CALLS.is_empty()).then(|| instructions.into_iter().flat_map(bytes).collect())
}

/// The same in a bundle's configuration.
pub(super) fn configuration() -> Option<Value> {
    let refuse = |request: u32| {
        json!({
            "names": ["ioctl"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "args": [{ "index": 1, "value": u32::MAX, "valueTwo": request, "op": "SCMP_CMP_MASKED_EQ" }],
        })
    };
    (!KINDS.is_empty()).then(|| {
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": KINDS,
            "syscalls": REFUSED.map(refuse),
        })
    })
}
