//! What a command reaches that is to have no network.

use std::fs;
use std::net::TcpListener;

use super::site::{Room, sites};
use crate::executor::{Network, RunSpec};

#[test]
fn privileged_no_network_is_loopback_alone() {
    for site in sites().into_iter().filter(|site| site.has_namespaces()) {
        let room = Room::new(site);
        let script = "ip -o link | cut -d: -f2; ip -o addr show dev lo up | grep -c 127.0.0.1";
        let spec = RunSpec {
            network: Network::None,
            ..room.script(script)
        };
        assert_eq!(room.run(&spec).text(), " lo\n1\n", "{site:?}");
        let count = fs::read_dir("/sys/class/net").unwrap().count();
        let outcome = room.run(&room.script("ip -o link | wc -l"));
        assert_eq!(outcome.text().trim(), count.to_string(), "{site:?}");
    }
}

#[test]
fn privileged_no_network_is_out_of_reach_without_namespaces() {
    let machine = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = machine.local_addr().unwrap().port();
    std::thread::spawn(move || machine.incoming().for_each(drop));
    let script = format!(
        "busybox nc -w 1 192.0.2.1 80; echo $?; busybox nc -w 1 127.0.0.1 {port} < /dev/null; echo $?
        busybox nslookup example.org 192.0.2.1 > /dev/null || echo unknown
        busybox ping -c 1 -W 1 127.0.0.1 > /dev/null || echo silent
        busybox nc -w 1 -u 127.0.0.1 {port} < /etc/passwd; ip -o link > /dev/null && echo asked"
    );
    for site in sites().into_iter().filter(|site| !site.has_namespaces()) {
        let room = Room::new(site);
        let spec = RunSpec {
            network: Network::None,
            ..room.script(&script)
        };
        let outcome = room.run(&spec);
        let errors = &outcome.stderr;
        assert_eq!(
            outcome.text(),
            "1\n1\nunknown\nsilent\nasked\n",
            "{site:?} {errors}"
        );
        for error in [
            "192.0.2.1): Network is unreachable".to_owned(),
            "127.0.0.1): Connection refused".to_owned(),
        ] {
            assert!(errors.contains(&error), "{site:?}: {error} in {errors}");
        }
        let reached = room.run(&room.script(&script));
        assert!(reached.text().starts_with("1\n0\n"), "{reached:?}");
    }
}

/// Processes of a step speak with each other by TCP wherever it runs; who binds to all
/// addresses is not to be reached from elsewhere.
#[test]
fn privileged_loopback_is_the_steps_own() {
    let script = "
        cd /tmp; echo hello > f
        busybox httpd -f -p 0.0.0.0:$PORT -h /tmp & server=$!
        n=0; until busybox wget -q -O - http://127.0.0.1:$PORT/f 2>/dev/null; do
            n=$((n+1)); [ $n -lt 50 ] || exit 1; sleep 0.1
        done
        busybox netstat -tln | awk -v p=:$PORT '$4 ~ p { print $4 }'
        kill $server; wait $server; busybox wget -q -O - http://127.0.0.1:$PORT/f || echo gone
        busybox httpd -f -p 127.0.0.1:$PORT -h /tmp & sleep 0.2
        busybox wget -q -O - http://127.0.0.1:$PORT/f";
    for site in sites() {
        let room = Room::new(site);
        // One that nobody has: the kernel gives it to nobody else soon.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut spec = RunSpec {
            network: Network::None,
            ..room.script(script)
        };
        spec.env.push(("PORT".into(), port.to_string()));
        let outcome = room.run(&spec);
        let local = match site.has_namespaces() {
            true => format!("0.0.0.0:{port}"),
            false => format!("127.0.0.1:{port}"),
        };
        assert_eq!(
            outcome.text(),
            format!("hello\n{local}\ngone\nhello\n"),
            "{site:?} {outcome:?}"
        );
    }
}
