//! What the running kernel says of its own structures: `/sys/kernel/btf/vmlinux` (BTF, `Documentation/bpf/btf.rst`).
//!
//! It has some hundred thousand types, of which two structures and two functions are wanted, by a supervisor that counts its
//! own memory against the cap. So it is read once from end to end in small pieces and nothing is kept of it.
//!
//! What it can never do: tell more than where a member is. A file that is not BTF, or of kinds that are not known, gives nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use aya_obj::generated as nr;

const MAGIC: u16 = 0xeb9f;
const PIECE: usize = 32 << 10;
/// Members behind this are out of an instruction's reach.
const MOST_BYTES: u32 = i16::MAX as u32;

/// A structure's member, by names.
pub type Member = (&'static str, &'static str);

/// Places of members in bytes, and numbers of functions.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Found {
    /// Offsets.
    pub members: HashMap<Member, u32>,
    /// Type numbers.
    pub functions: HashMap<&'static str, u32>,
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// A part of the file, from its beginning.
struct Part {
    file: BufReader<File>,
    /// Bytes not read yet.
    left: u32,
}

impl Part {
    fn of(file: &File, from: u32, len: u32) -> io::Result<Part> {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(u64::from(from)))?;
        Ok(Part { file: BufReader::with_capacity(PIECE, file), left: len })
    }

    fn take(&mut self, bytes: u32) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(invalid)?;
        Ok(())
    }

    fn three_words(&mut self) -> io::Result<[u32; 3]> {
        let mut bytes = [[0; 4]; 3];
        self.take(12)?;
        self.file.read_exact(bytes.as_flattened_mut())?;
        Ok(bytes.map(u32::from_ne_bytes))
    }

    fn skip(&mut self, words: u32) -> io::Result<()> {
        let bytes = words.checked_mul(4).ok_or_else(invalid)?;
        self.take(bytes)?;
        self.file.seek_relative(i64::from(bytes))
    }
}

/// Looks for members and functions in a BTF file.
///
/// # Errors
/// The file cannot be read, or is not BTF as known in 6.18. What is not in it is not in the result.
pub fn find(path: &str, members: &[Member], functions: &[&'static str]) -> io::Result<Found> {
    let mut file = File::open(path)?;
    let mut head = [0; size_of::<nr::btf_header>()];
    file.read_exact(&mut head)?;
    let word = |at: usize| {
        let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or_else(invalid)
    };
    if word(0)? & 0xffff != u32::from(MAGIC) {
        return Err(invalid());
    }
    let (base, types, types_len, strings, strings_len) =
        (word(4)?, word(8)?, word(12)?, word(16)?, word(20)?);
    let mut wanted: Vec<&'static str> = functions.to_vec();
    wanted.extend(members.iter().flat_map(|(structure, member)| [*structure, *member]));
    let part = |from: u32, len| Part::of(&file, base.saturating_add(from), len);
    let names = names(part(strings, strings_len)?, &wanted)?;
    let mut scan =
        Scan { names: &names, members, functions, inside: HashMap::new(), found: Found::default() };
    // The parts of a structure that have no name are types of their own, and may come before it: once more for those.
    for _ in 0..2 {
        scan.types(part(types, types_len)?)?;
        if scan.found.members.len() == members.len() {
            break;
        }
    }
    Ok(scan.found)
}

/// Where the wanted names are among the strings.
fn names(mut strings: Part, wanted: &[&'static str]) -> io::Result<HashMap<u32, &'static str>> {
    let mut names = HashMap::new();
    let mut at = 0;
    let mut name = Vec::new();
    while strings.left > 0 {
        name.clear();
        let len = strings.file.by_ref().take(u64::from(strings.left)).read_until(0, &mut name)?;
        // No longer than what was left.
        let len = len as u32;
        if name.pop() != Some(0) {
            return Err(invalid());
        }
        if let Some(&known) = wanted.iter().find(|wanted| wanted.as_bytes() == name) {
            names.insert(at, known);
        }
        at += len;
        strings.take(len)?;
    }
    Ok(names)
}

struct Scan<'a> {
    names: &'a HashMap<u32, &'static str>,
    members: &'a [Member],
    functions: &'a [&'static str],
    /// Types without a name that are part of a wanted structure: which, and from which byte.
    inside: HashMap<u32, (&'static str, u32)>,
    found: Found,
}

impl Scan<'_> {
    fn types(&mut self, mut types: Part) -> io::Result<()> {
        let mut number = 0;
        while types.left > 0 {
            number += 1;
            let [name, info, _] = types.three_words()?;
            let name = self.names.get(&name).copied();
            let parts = info & 0xffff;
            match info >> 24 & 0x1f {
                nr::BTF_KIND_STRUCT | nr::BTF_KIND_UNION => {
                    let of = name
                        .filter(|name| self.members.iter().any(|(structure, _)| structure == name))
                        .map(|name| (name, 0))
                        .or_else(|| self.inside.get(&number).copied());
                    let Some((structure, from)) = of else {
                        types.skip(3 * parts)?;
                        continue;
                    };
                    for _ in 0..parts {
                        let [member, kind, place] = types.three_words()?;
                        // Where the structure has bit fields, the upper byte is their width.
                        let bits = if info >> 31 == 1 { place & 0xff_ffff } else { place };
                        let at = from + bits / 8;
                        if at > MOST_BYTES {
                            return Err(invalid());
                        }
                        if member == 0 {
                            self.inside.insert(kind, (structure, at));
                        } else if let Some(&member) = self.names.get(&member)
                            && self.members.contains(&(structure, member))
                        {
                            self.found.members.insert((structure, member), at);
                        }
                    }
                }
                nr::BTF_KIND_FUNC => {
                    if let Some(name) = name.filter(|name| self.functions.contains(name)) {
                        self.found.functions.insert(name, number);
                    }
                }
                kind => {
                    types.skip(match kind {
                        nr::BTF_KIND_INT | nr::BTF_KIND_VAR | nr::BTF_KIND_DECL_TAG => 1,
                        nr::BTF_KIND_ARRAY => 3,
                        nr::BTF_KIND_ENUM | nr::BTF_KIND_FUNC_PROTO => 2 * parts,
                        nr::BTF_KIND_DATASEC | nr::BTF_KIND_ENUM64 => 3 * parts,
                        nr::BTF_KIND_PTR
                        | nr::BTF_KIND_FWD
                        | nr::BTF_KIND_TYPEDEF
                        | nr::BTF_KIND_VOLATILE
                        | nr::BTF_KIND_CONST
                        | nr::BTF_KIND_RESTRICT
                        | nr::BTF_KIND_FLOAT
                        | nr::BTF_KIND_TYPE_TAG => 0,
                        _ => return Err(invalid()),
                    })?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const WANTED: [Member; 3] = [("outer", "plain"), ("outer", "deep"), ("outer", "late")];
    const FUNCTIONS: [&str; 2] = ["called", "never"];

    /// A small file: its words and where its types end.
    fn small() -> Vec<u8> {
        let strings = b"\0outer\0plain\0deep\0late\0called\0other\0";
        let name = |name: &str| {
            let at =
                strings.windows(name.len() + 1).position(|found| found == [name.as_bytes(), b"\0"].concat());
            at.unwrap() as u32
        };
        let info = |kind: u32, parts: u32, bits: u32| bits << 31 | kind << 24 | parts;
        let types = [
            // 1: an integer, with a word behind it.
            vec![name("other"), info(nr::BTF_KIND_INT, 0, 0), 4, 32],
            // 2: a union without a name, before the structure that it is part of.
            vec![0, info(nr::BTF_KIND_UNION, 1, 0), 4, name("deep"), 1, 0],
            // 3: the structure, with a bit field; the third part is the union at byte 8, the fourth a later type at byte 16.
            vec![name("outer"), info(nr::BTF_KIND_STRUCT, 4, 1), 24],
            vec![name("other"), 1, 3 << 24, name("plain"), 1, 4 * 8, 0, 2, 8 * 8, 0, 6, 16 * 8],
            // 4: a function's type, of two parameters. 5: the function.
            vec![0, info(nr::BTF_KIND_FUNC_PROTO, 2, 0), 1, 0, 1, 0, 1],
            vec![name("called"), info(nr::BTF_KIND_FUNC, 0, 0), 4],
            // 6: the later type.
            vec![0, info(nr::BTF_KIND_STRUCT, 2, 0), 8, name("other"), 1, 0, name("late"), 1, 4 * 8],
            // 7: a structure with members of the same names, which is none of those wanted.
            vec![name("other"), info(nr::BTF_KIND_STRUCT, 1, 0), 8, name("plain"), 1, 8 * 8],
        ]
        .concat();
        let len = (types.len() * 4) as u32;
        let head = [u32::from(MAGIC) | 1 << 16, 24, 0, len, len, strings.len() as u32];
        let words = head.into_iter().chain(types).flat_map(u32::to_ne_bytes);
        words.chain(strings.iter().copied()).collect()
    }

    fn find_in(bytes: &[u8]) -> io::Result<Found> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(bytes)?;
        find(file.path().to_str().unwrap(), &WANTED, &FUNCTIONS)
    }

    #[test]
    fn members_are_found_also_in_parts_without_a_name() {
        let found = find_in(&small()).unwrap();
        assert_eq!(found.members, HashMap::from([(WANTED[0], 4), (WANTED[1], 8), (WANTED[2], 20)]));
        assert_eq!(found.functions, HashMap::from([("called", 5)]));
    }

    #[test]
    fn what_is_damaged_is_an_error_or_something_else() {
        let whole = small();
        for len in 0..whole.len() {
            assert!(find_in(&whole[..len]).is_err(), "cut to {len}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let _ = find_in(&bytes);
            }
        }
    }
}
