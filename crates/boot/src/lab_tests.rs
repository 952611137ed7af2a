use super::*;

fn lab() -> Lab {
    Lab {
        xen: "xen".into(),
        tools: Vec::new(),
        kernel: "k".into(),
        modules: None,
        qemu: "qemu".into(),
        scratch: "s".into(),
    }
}

#[test]
fn the_usual_exercise_unloads_in_reverse_order() {
    let payloads = ["d/a.livepatch".into(), "e/b.livepatch".into()];
    let plan = Plan::exercise(&payloads, &["cat /x".to_owned()]);
    let commands: Vec<&str> = plan.steps.iter().map(|step| step.command.as_str()).collect();
    let expected = [
        "cat /x",
        "xen-livepatch load /payloads/a.livepatch",
        "xen-livepatch load /payloads/b.livepatch",
        "xen-livepatch list",
        "cat /x",
        "xen-livepatch revert b",
        "xen-livepatch unload b",
        "xen-livepatch revert a",
        "xen-livepatch unload a",
        "cat /x",
        "xen-livepatch list",
    ];
    assert_eq!(commands, expected);
}

#[test]
fn commas_of_the_kernels_arguments_are_doubled() {
    let plan = Plan { kernel_args: vec!["earlyprintk=xen,keep".to_owned()], ..Plan::default() };
    let line = lab().job(&plan, Path::new("/")).display();
    assert!(line.ends_with("-initrd vmlinux console=hvc0 panic=1 loglevel=4 earlyprintk=xen,,keep,initrd"));
}

#[test]
fn two_payloads_of_a_name_are_one_too_many() {
    let dir = tempfile::TempDir::new().expect("temporary folder");
    let paths = ["a", "b"].map(|sub| dir.path().join(sub).join("p.livepatch"));
    for path in &paths {
        fs::create_dir(path.parent().expect("parent")).expect("folder");
        fs::write(path, "x").expect("file");
    }
    let plan = Plan { payloads: paths.to_vec(), ..Plan::default() };
    let error = add_payloads(&plan, &mut Archive::new()).expect_err("the same name twice");
    assert!(codes::any(&error, codes::PLAN_UNUSABLE));
    let plan = Plan { payloads: paths[..1].to_vec(), ..Plan::default() };
    let mut archive = Archive::new();
    add_payloads(&plan, &mut archive).expect("one");
    assert!(archive.contains("/payloads/p.livepatch"));
}

#[test]
fn only_what_multiboot_loads_is_booted() {
    let dir = tempfile::TempDir::new().expect("temporary folder");
    let image = |bytes: &[u8]| {
        let path = dir.path().join("xen");
        fs::write(&path, bytes).expect("file");
        lab().with_xen(path).xen_image()
    };
    assert!(image(b"\x7fELF\x01rest").is_ok());
    for wrong in [&b"\x7fELF\x02rest"[..], b"MZ efi", b"text", b""] {
        assert!(codes::any(&image(wrong).expect_err("not for multiboot"), codes::XEN_UNREADABLE));
    }
}

#[test]
fn a_missing_emulator_says_what_to_install() {
    let start = || xsplice_process::Error::Start {
        program: "/opt/emulator".to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
    };
    let problem = missing_qemu(codes::job(start())).0.remove(0);
    assert_eq!(problem.code, codes::TOOL_MISSING);
    assert!(problem.advice.contains("apt-get install qemu-system-x86"));
}

#[test]
fn a_panic_is_found_where_lines_arrive_in_pieces() {
    let dir = tempfile::TempDir::new().expect("temporary folder");
    let plan = Plan::default();
    let mut watch = Watch::new(dir.path(), "n", &plan, &|_| {}).expect("a watch");
    watch.xen.bytes.extend_from_slice(b"fine\n(XEN) Panic on");
    assert_eq!(watch.new_panic(), None);
    watch.xen.bytes.extend_from_slice(b" CPU 0:\r\nmore");
    assert_eq!(watch.new_panic().as_deref(), Some("(XEN) Panic on CPU 0:"));
    assert_eq!(watch.new_panic(), None);
}
