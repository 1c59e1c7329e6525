//! Git servers that hang, lie or die, as the service meets them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use serde_json::json;

use crate::command::Place;
use crate::served::Served;

/// A server that does one thing to every connection, until the test ends.
fn server(answer: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            answer(connection);
        }
    });
    format!("http://{address}/team/app.git")
}

fn read_request(connection: &mut TcpStream) {
    let mut request = [0; 4096];
    // Whatever came is enough: the answer does not depend on it.
    let _ = connection.read(&mut request);
}

const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n";

fn service(place: &Place) -> Served {
    let registry = ("LOCAL_REGISTRY", "127.0.0.1:1".to_owned());
    Served::start(place, "data", &[registry])
}

#[test]
fn a_server_that_hangs_costs_no_more_than_the_time_of_the_build() {
    let place = Place::new();
    let service = service(&place);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/team/app.git", silent.local_addr().unwrap());
    let task = service.submit_json(&json!({
        "app_name": "app",
        "image_tag": "v1",
        "context": {"type": "git", "url": url},
        "timeout_seconds": 2,
    }));
    // The connection is there and nothing comes.
    let _connection = silent.accept().unwrap();
    service.assert_fails(&task, "2 s");
}

#[test]
fn servers_that_die_lie_or_are_none_are_said_to() {
    let place = Place::new();
    let service = service(&place);
    let dies = server(|mut connection| {
        read_request(&mut connection);
        let _ = write!(
            connection,
            "{HEAD}Content-Length: 5000\r\n\r\n001e# service=git-upload"
        );
    });
    let lies = server(|mut connection| {
        read_request(&mut connection);
        // A length of a terabyte, and a packet that says it has 65,519 bytes.
        let _ = write!(
            connection,
            "{HEAD}Content-Length: 1099511627776\r\n\r\nffefshort"
        );
    });
    let other = server(|mut connection| {
        read_request(&mut connection);
        let page = "<html>welcome</html>";
        let length = page.len();
        let _ = write!(
            connection,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}"
        );
    });
    let closes = server(drop);
    let began = Instant::now();
    for (url, reason) in [
        (&dies, "127.0.0.1"),
        (&lies, "127.0.0.1"),
        (&other, "is not a Git repository"),
        (&closes, "127.0.0.1"),
    ] {
        let task = service.submit(url, "v1", None);
        service.assert_fails(&task, reason);
    }
    assert!(began.elapsed() < crate::served::PATIENCE);
}

#[test]
fn sources_that_are_not_allowed_are_refused_before_anything_is_asked() {
    let place = Place::new();
    let service = service(&place);
    for url in [
        "file:///etc",
        "/etc",
        "ext::sh -c id",
        "--upload-pack=/bin/id",
        "ssh://-oProxyCommand=id/x",
        "http://elsewhere.example/x.git",
        "https://user:password@[::1]:0/../x",
    ] {
        let form = [("app_name", "app"), ("image_tag", "v1"), ("git_repo", url)];
        let answer = service
            .post("/build_with_dockerfile")
            .form(&form)
            .send()
            .unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().unwrap();
        if status == 200 {
            // What only the build can know.
            let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
            let task = answer["task_id"].as_str().unwrap();
            assert_eq!(service.follow(task).state, "failed", "{url}");
        } else {
            assert_eq!(status, 422, "{url}: {text}");
            assert!(!text.contains("task_id"), "{url}: {text}");
        }
    }
    // The metadata service of a cloud is reached by no name.
    let task = service.submit("https://169.254.169.254/latest/app.git", "v1", None);
    service.assert_fails(&task, "not allowed");
}
