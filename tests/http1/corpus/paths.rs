//! Path normalization (RFC 3986, section 6.2.2): the router, filters and the upstream see the same
//! path. Dot segments are removed, `//` is merged, unreserved bytes are decoded, `%2F` is kept.

use crate::case::Expect::{Either, Forward, Reject};
use crate::case::{self, Case, Expect};

/// The target, the expected reaction, and the targets that may be forwarded instead.
type Row = (&'static str, Expect, &'static [&'static str]);

const PATHS: &[Row] = &[
    ("/a/../b", Forward, &["/b"]),
    ("/a/./b", Forward, &["/a/b"]),
    ("/a/b/..", Forward, &["/a/"]),
    ("/a/b/.", Forward, &["/a/b/"]),
    ("/a/b/../", Forward, &["/a/"]),
    ("/a/b/./", Forward, &["/a/b/"]),
    ("/a/..", Forward, &["/"]),
    ("/.", Forward, &["/"]),
    ("/./", Forward, &["/"]),
    ("/./a", Forward, &["/a"]),
    ("/a/b/../../c", Forward, &["/c"]),
    ("/a/../../b", Either, &["/b"]),
    ("/..", Either, &["/"]),
    ("/../", Either, &["/"]),
    ("/../b", Either, &["/b"]),
    ("/../../../../etc/passwd", Either, &["/etc/passwd"]),
    ("/a/b/../../../c", Either, &["/c"]),
    ("/a//b", Forward, &["/a/b"]),
    ("//a", Forward, &["/a"]),
    ("///a///b///", Forward, &["/a/b/"]),
    ("//", Forward, &["/"]),
    // Slashes may be merged before or after dot segments are removed. Both results are normalized.
    ("/a//../b", Forward, &["/b", "/a/b"]),
    ("/a/.//../b", Forward, &["/b", "/a/b"]),
    ("//../b", Either, &["/b"]),
    ("/a/%2e%2e/b", Forward, &["/b"]),
    ("/a/%2E%2E/b", Forward, &["/b"]),
    ("/a/.%2e/b", Forward, &["/b"]),
    ("/a/%2e./b", Forward, &["/b"]),
    ("/a/%2e/b", Forward, &["/a/b"]),
    ("/%2e%2e/b", Either, &["/b"]),
    ("/%2E", Forward, &["/"]),
    ("/a/%2e%2e", Forward, &["/"]),
    ("/a%2fb", Either, &["/a%2fb", "/a%2Fb"]),
    ("/a%2Fb", Either, &["/a%2Fb"]),
    ("/a/..%2fb", Either, &["/a/..%2fb", "/a/..%2Fb"]),
    ("/a%2f..%2fb", Either, &["/a%2f..%2fb", "/a%2F..%2Fb"]),
    ("/a/%2e%2e%2fb", Either, &["/a/..%2fb", "/a/..%2Fb"]),
    ("/a/%2F/b", Either, &["/a/%2F/b"]),
    ("/%41%62", Forward, &["/Ab"]),
    ("/%7Euser", Forward, &["/~user"]),
    ("/a%2Db%5Fc", Forward, &["/a-b_c"]),
    ("/%61dmin", Forward, &["/admin"]),
    ("/a%20b", Forward, &["/a%20b"]),
    ("/a+b", Forward, &["/a+b"]),
    ("/a%2Bb", Forward, &["/a%2Bb"]),
    ("/caf%c3%a9", Forward, &["/caf%c3%a9", "/caf%C3%A9"]),
    ("/a%ffb", Either, &["/a%ffb", "/a%FFb"]),
    ("/%c0%ae%c0%ae/b", Either, &["/%c0%ae%c0%ae/b", "/%C0%AE%C0%AE/b"]),
    ("/%252e%252e/b", Either, &["/%252e%252e/b"]),
    ("/a%252fb", Either, &["/a%252fb"]),
    ("/a%2500", Either, &["/a%2500"]),
    ("/a%23b", Forward, &["/a%23b"]),
    ("/a%3Fb", Forward, &["/a%3Fb"]),
    ("/a%3fb?c", Forward, &["/a%3fb?c", "/a%3Fb?c"]),
    ("/a%3Bb", Either, &["/a%3Bb"]),
    ("/a%25b", Forward, &["/a%25b"]),
    ("/a%0d%0aX-A:%20b", Either, &["/a%0d%0aX-A:%20b", "/a%0D%0AX-A:%20b"]),
    ("/a%0ab", Either, &["/a%0ab", "/a%0Ab"]),
    ("/a%09b", Either, &["/a%09b"]),
    ("/a%7Fb", Either, &["/a%7Fb"]),
    ("/a%5c..%5cb", Either, &["/a%5c..%5cb", "/a%5C..%5Cb"]),
    ("/a;b=c/d", Forward, &["/a;b=c/d"]),
    ("/a;/b", Forward, &["/a;/b"]),
    ("/a/..;/b", Either, &["/a/..;/b"]),
    ("/a/..;x=y/b", Either, &["/a/..;x=y/b"]),
    ("/a/.;/b", Either, &["/a/.;/b"]),
    ("/;/a", Forward, &["/;/a"]),
    ("/.../a", Forward, &["/.../a"]),
    ("/a/..b", Forward, &["/a/..b"]),
    ("/a/b..", Forward, &["/a/b.."]),
    ("/.a", Forward, &["/.a"]),
    ("/a:b@c", Forward, &["/a:b@c"]),
    ("/a,b!c$d&e'f(g)h*i=j", Forward, &["/a,b!c$d&e'f(g)h*i=j"]),
    ("/a?b=/../c", Forward, &["/a?b=/../c"]),
    ("/a/../b?c=%2e%2e", Forward, &["/b?c=%2e%2e", "/b?c=.."]),
    ("/a?b=%zz", Either, &["/a?b=%zz"]),
    ("/a?b=%00", Either, &["/a?b=%00"]),
    ("/?", Forward, &["/?", "/"]),
    ("/a%00b", Reject, &[]),
    ("/%00", Reject, &[]),
    ("/a/%00/../b", Reject, &[]),
    ("/a%", Reject, &[]),
    ("/a%4", Reject, &[]),
    ("/a%zz", Reject, &[]),
    ("/a%2", Reject, &[]),
    ("/a%g0/b", Reject, &[]),
    ("/a%%32e", Reject, &[]),
    ("/a%u002e/b", Reject, &[]),
    ("/a%+1/b", Reject, &[]),
    ("/a/%2/../b", Reject, &[]),
];

pub(crate) fn cases() -> Vec<Case> {
    let rows = PATHS.iter().map(|(target, expect, forwarded)| {
        // The end of the request is certain, so the connection may stay open.
        let expect = if *expect == Reject { Expect::LocalReply } else { *expect };
        let case = case::new(expect, format!("path {target}"), "3986 6.2.2", case::target(target.as_bytes()));
        if forwarded.is_empty() { case.status(&[400]) } else { case.targets(forwarded) }
    });
    let mut cases: Vec<Case> = rows.collect();
    let deep = "/a/..".repeat(1500);
    cases.push(
        case::forward("path of 1500 dot segments", "3986 6.2.2", case::target(format!("{deep}/b").as_bytes()))
            .target("/b"),
    );
    let slashes = "/".repeat(7000);
    cases.push(
        case::forward("path of 7000 slashes", "3986 6.2.2", case::target(format!("{slashes}b").as_bytes()))
            .target("/b"),
    );
    cases
}
