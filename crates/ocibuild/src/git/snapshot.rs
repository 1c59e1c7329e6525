//! The other side of a fetch, as small as it can be: a repository of one commit, held in
//! memory and served over smart HTTP without any program. The demonstration serves its
//! sample repository with it, and `git clone` understands it as well as [`super::checkout`].
//!
//! Enters: files, then HTTP requests. Leaves: HTTP answers. Which server carries them is
//! the caller's choice. Formats: gitformat-pack (objects without deltas) and
//! gitprotocol-v2 (`ls-refs` and `fetch`).

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use gix::ObjectId;
use gix::objs::Kind;

const BRANCH: &str = "refs/heads/main";
const SERVICE: &str = "git-upload-pack";
const FLUSH: &[u8] = b"0000";
const DELIMITER: &[u8] = b"0001";
/// A packet line holds 65,516 bytes, of which one names the side band.
const BAND_PAYLOAD: usize = 65_515;
const PACK_DATA: u8 = 1;

/// A repository with one commit on its branch `main`.
#[derive(Debug, Clone)]
pub struct GitSnapshot {
    commit: ObjectId,
    pack: Vec<u8>,
}

/// What to send back for one HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotAnswer {
    /// HTTP status.
    pub status: u16,
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl GitSnapshot {
    /// Makes a repository of regular files, given as relative paths and contents; the same
    /// files give the same commit id.
    ///
    /// ```
    /// # use ocibuild::git::GitSnapshot;
    /// let repository = GitSnapshot::new([("Dockerfile", b"FROM scratch\n".as_slice())]);
    /// assert_eq!(repository.commit_id().len(), 40);
    /// ```
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut root = Folder::default();
        for (path, content) in files {
            root.add(path, content);
        }
        let mut pack = PackWriter::default();
        let tree = root.write(&mut pack);
        let commit = pack.add(Kind::Commit, commit_text(tree).as_bytes());
        Self {
            commit,
            pack: pack.finish(),
        }
    }

    /// Gives the id of the commit.
    pub fn commit_id(&self) -> String {
        self.commit.to_string()
    }

    /// Answers a request; `path` is what follows the repository's own path, such as
    /// `/info/refs`, and `query` what follows the question mark.
    pub fn answer(&self, method: &str, path: &str, query: &str, body: &[u8]) -> SnapshotAnswer {
        match (method, path, query) {
            ("GET", "/info/refs", "service=git-upload-pack") => SnapshotAnswer {
                status: 200,
                content_type: "application/x-git-upload-pack-advertisement",
                body: capabilities(),
            },
            ("POST", "/git-upload-pack", _) => SnapshotAnswer {
                status: 200,
                content_type: "application/x-git-upload-pack-result",
                body: self.run(body),
            },
            _ => SnapshotAnswer {
                status: 404,
                content_type: "text/plain",
                body: b"not found\n".to_vec(),
            },
        }
    }

    fn run(&self, request: &[u8]) -> Vec<u8> {
        let lines = packet_lines(request);
        let has = |line: &str| lines.iter().any(|l| l == line);
        if has("command=ls-refs") {
            self.list_references(has("symrefs"))
        } else if has("command=fetch") && has(&format!("want {}", self.commit)) {
            self.send_pack()
        } else {
            let mut answer = Vec::new();
            write_packet(&mut answer, b"ERR not our ref\n");
            answer
        }
    }

    fn list_references(&self, symbolic: bool) -> Vec<u8> {
        let mut answer = Vec::new();
        let target = match symbolic {
            true => format!(" symref-target:{BRANCH}"),
            false => String::new(),
        };
        write_packet(
            &mut answer,
            format!("{} HEAD{target}\n", self.commit).as_bytes(),
        );
        write_packet(
            &mut answer,
            format!("{} {BRANCH}\n", self.commit).as_bytes(),
        );
        answer.extend(FLUSH);
        answer
    }

    /// Sends everything: whoever lacks the only commit lacks the whole repository. The
    /// commit has no parents, so a shallow fetch gets the same.
    fn send_pack(&self) -> Vec<u8> {
        let mut answer = Vec::new();
        write_packet(&mut answer, b"packfile\n");
        for part in self.pack.chunks(BAND_PAYLOAD) {
            let mut packet = Vec::with_capacity(part.len() + 1);
            packet.push(PACK_DATA);
            packet.extend(part);
            write_packet(&mut answer, &packet);
        }
        answer.extend(FLUSH);
        answer
    }
}

fn capabilities() -> Vec<u8> {
    let mut answer = Vec::new();
    write_packet(&mut answer, format!("# service={SERVICE}\n").as_bytes());
    answer.extend(FLUSH);
    for line in [
        "version 2",
        "agent=ocibuild",
        "ls-refs",
        "fetch=shallow",
        "object-format=sha1",
    ] {
        write_packet(&mut answer, format!("{line}\n").as_bytes());
    }
    answer.extend(FLUSH);
    answer
}

fn write_packet(out: &mut Vec<u8>, payload: &[u8]) {
    out.extend(format!("{:04x}", payload.len() + 4).as_bytes());
    out.extend(payload);
}

/// Splits a request into its lines, without line ends; what cannot be read ends it.
fn packet_lines(mut rest: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some((head, tail)) = rest.split_at_checked(4) {
        if head == FLUSH || head == DELIMITER {
            rest = tail;
            continue;
        }
        let length = std::str::from_utf8(head)
            .ok()
            .and_then(|text| usize::from_str_radix(text, 16).ok())
            .and_then(|length| length.checked_sub(4));
        let Some((payload, tail)) = length.and_then(|length| tail.split_at_checked(length)) else {
            break;
        };
        lines.push(String::from_utf8_lossy(payload).trim_end().to_owned());
        rest = tail;
    }
    lines
}

/// A directory on its way to a tree object.
#[derive(Default)]
struct Folder<'a> {
    files: BTreeMap<&'a str, &'a [u8]>,
    folders: BTreeMap<&'a str, Folder<'a>>,
}

impl<'a> Folder<'a> {
    fn add(&mut self, path: &'a str, content: &'a [u8]) {
        match path.split_once('/') {
            Some((folder, rest)) => self.folders.entry(folder).or_default().add(rest, content),
            None => {
                self.files.insert(path, content);
            }
        }
    }

    fn write(&self, pack: &mut PackWriter) -> ObjectId {
        // Trees are sorted as if the names of folders ended in a slash.
        let mut entries = BTreeMap::new();
        for (name, content) in &self.files {
            entries.insert(
                (*name).to_owned(),
                ("100644", *name, pack.add(Kind::Blob, content)),
            );
        }
        for (name, folder) in &self.folders {
            entries.insert(format!("{name}/"), ("40000", *name, folder.write(pack)));
        }
        let mut tree = Vec::new();
        for (mode, name, id) in entries.values() {
            tree.extend(format!("{mode} {name}\0").as_bytes());
            tree.extend(id.as_slice());
        }
        pack.add(Kind::Tree, &tree)
    }
}

fn commit_text(tree: ObjectId) -> String {
    let who = "ocibuild <ocibuild@localhost> 1700000000 +0000";
    format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nSample\n")
}

/// Collects objects into a pack; each is stored once.
#[derive(Default)]
struct PackWriter {
    objects: BTreeMap<ObjectId, Vec<u8>>,
}

impl PackWriter {
    fn add(&mut self, kind: Kind, data: &[u8]) -> ObjectId {
        let id = sha1(&[
            kind.as_bytes(),
            format!(" {}\0", data.len()).as_bytes(),
            data,
        ]);
        self.objects.entry(id).or_insert_with(|| packed(kind, data));
        id
    }

    fn finish(self) -> Vec<u8> {
        let count = u32::try_from(self.objects.len()).expect("a sample has few files");
        let mut pack = b"PACK\0\0\0\x02".to_vec();
        pack.extend(count.to_be_bytes());
        pack.extend(self.objects.into_values().flatten());
        let checksum = sha1(&[&pack]);
        pack.extend(checksum.as_slice());
        pack
    }
}

fn sha1(parts: &[&[u8]]) -> ObjectId {
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    for part in parts {
        hasher.update(part);
    }
    hasher
        .try_finalize()
        .expect("only crafted collision attacks fail, and the input is ours")
}

/// Writes one object as it stands in a pack: kind and size in groups of seven bits, then zlib.
fn packed(kind: Kind, data: &[u8]) -> Vec<u8> {
    let number = match kind {
        Kind::Commit => 1,
        Kind::Tree => 2,
        Kind::Blob => 3,
        Kind::Tag => 4,
    };
    let mut size = data.len();
    let mut byte = (number << 4) | (size & 0x0f) as u8;
    size >>= 4;
    let mut out = Vec::new();
    while size > 0 {
        out.push(byte | 0x80);
        byte = (size & 0x7f) as u8;
        size >>= 7;
    }
    out.push(byte);
    let mut zlib = ZlibEncoder::new(out, Compression::default());
    zlib.write_all(data)
        .and_then(|()| zlib.finish())
        .expect("writing to memory does not fail")
}
