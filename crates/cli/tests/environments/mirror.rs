//! A repository of packages on loopback: files of a folder over HTTP.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

/// Serves a folder as long as the process lives.
pub(crate) fn serve(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming().filter_map(Result::ok) {
            let folder = folder.clone();
            // A client that goes away is no failure.
            std::thread::spawn(move || answer(connection, &folder));
        }
    });
    url
}

/// Answers the requests of one connection; `apt` sends many.
fn answer(mut connection: TcpStream, folder: &Path) -> io::Result<()> {
    let mut requests = BufReader::new(connection.try_clone()?);
    loop {
        let mut first = String::new();
        if requests.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut field = String::new();
        while requests.read_line(&mut field)? > 2 {
            field.clear();
        }
        let path = decoded(first.split(' ').nth(1).unwrap_or("/"));
        let name = path.rsplit('/').next().unwrap_or_default();
        match File::open(folder.join(name)).and_then(|file| Ok((file.metadata()?, file))) {
            Ok((metadata, mut file)) if metadata.is_file() => {
                write!(
                    connection,
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                    metadata.len()
                )?;
                io::copy(&mut file, &mut connection)?;
            }
            _ => connection.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
        }
    }
}

/// Replaces what is written as `%3a`.
fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        match u8::from_str_radix(code, 16) {
            Ok(byte) => text.push(char::from(byte)),
            Err(_) => text.extend(["%", code]),
        }
        text.push_str(rest);
    }
    text
}
