//! How guests and users end a VM.

use std::{fs, path::PathBuf};

use vmm_sys_util::tempfile::TempFile;

use crate::{
    guest::Code,
    process::{Outcome, Process, have_kvm, outcome, ringwire, run},
};

fn end_of(code: &Code) -> Outcome {
    outcome(&mut run(code.kernel().as_path(), &[]))
}

#[test]
fn a_guest_prints_and_powers_off() {
    if !have_kvm() {
        return;
    }
    let end = end_of(&Code::new().print("hello\n").power_off());
    assert_eq!(
        (end.code(), end.stdout.as_str(), end.stderr.as_str()),
        (0, "hello\n", "")
    );
}

#[test]
fn string_instructions_are_as_many_accesses() {
    if !have_kvm() {
        return;
    }
    let end = end_of(
        &Code::new()
            .print_string("all of it, in order\n")
            .power_off(),
    );
    assert_eq!(
        (end.code(), end.stdout.as_str()),
        (0, "all of it, in order\n")
    );
}

#[test]
fn resets_end_it_as_a_power_off_does() {
    if !have_kvm() {
        return;
    }
    for reset in [Code::new().out(0xcf9, 6), Code::new().out(0x64, 0xfe)] {
        let end = end_of(&reset.sleep());
        assert_eq!((end.code(), end.stderr.as_str()), (0, ""));
    }
}

#[test]
fn a_guest_without_acpi_has_ended_when_all_its_cpus_halt_for_good() {
    if !have_kvm() {
        return;
    }
    let guest = Code::new().print("off\n").sleep().kernel();
    // The second CPU waits for its start.
    let options = ["-v", "--cpus", "2", "--cmdline", "acpi=off"];
    let end = outcome(&mut run(guest.as_path(), &options));
    assert_eq!((end.code(), end.stdout.as_str()), (0, "off\n"));
    assert!(end.stderr.contains("the guest halted all of its CPUs"));
}

#[test]
fn the_lines_of_the_pics_are_masked_until_a_guest_opens_them() {
    if !have_kvm() {
        return;
    }
    // Their masks are at 0x21 and 0xa1. Nothing is at 0x22, which shows that 0x21 is no such port.
    let code = Code::new().print_port(0x21).print_port(0xa1);
    let code = code.out(0x21, 0xfe).print_port(0x21).print_port(0x22);
    let end = end_of(&code.print("\n").power_off());
    assert_eq!((end.code(), end.stdout.as_str()), (0, "yyxy\n"));
}

#[test]
fn a_panic_has_its_own_status() {
    if !have_kvm() {
        return;
    }
    let end = end_of(&Code::new().out(0x505, 1).sleep());
    end.assert_fails(3, "the guest's kernel panicked");
}

#[test]
fn a_guest_that_kvm_cannot_run_is_an_error() {
    if !have_kvm() {
        return;
    }
    // lidt with an empty table; ud2: a triple fault on hardware. A KVM that emulates ring 0 may
    // give up instead.
    let crash = Code::new().bytes(&[0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0x0f, 0x0b]);
    let crash = Code::new()
        .bytes(&[0xbc, 0, 0, 0x11, 0])
        .bytes(crash.as_bytes());
    let end = end_of(&crash.sleep());
    match end.code() {
        4 => end.assert_fails(4, "triple fault"),
        _ => end.assert_fails(5, "`ringwire check kvm`"),
    }
}

#[test]
fn signals_end_it() {
    if !have_kvm() {
        return;
    }
    let marker = "ready";
    for code in [
        Code::new().print(marker).spin(),
        Code::new().print(marker).sleep(),
    ] {
        for (signal, status) in [
            (libc::SIGTERM, 143),
            (libc::SIGINT, 130),
            (libc::SIGHUP, 129),
        ] {
            let kernel = code.kernel();
            let mut process = Process::start(&mut run(kernel.as_path(), &["--cpus", "2"]));
            process.wait_for(marker);
            process.signal(signal);
            let end = process.finish_with_open_input();
            end.assert_fails(status, "ended by signal");
        }
    }
}

#[test]
fn output_that_nobody_reads_does_not_keep_it() {
    if !have_kvm() {
        return;
    }
    // Prints for ever: more than any pipe holds.
    let kernel = Code::new()
        .print("ready")
        .out(0x3f8, b'x')
        .bytes(&[0xeb, 0xf7])
        .kernel();
    let mut process = Process::start(&mut run(kernel.as_path(), &[]));
    process.wait_for("readyxxxx");
    // The console's thread waits for the same port.
    process.send(b"input");
    std::thread::sleep(std::time::Duration::from_millis(300));
    process.signal(libc::SIGTERM);
    assert_eq!(process.wait().code(), Some(143));
}

#[test]
fn serial_output_goes_where_it_is_sent() {
    if !have_kvm() {
        return;
    }
    let kernel = Code::new().print("to the file").power_off().kernel();
    let log = TempFile::new().unwrap();
    let file = format!("file={}", log.as_path().display());
    let end = outcome(&mut run(kernel.as_path(), &["--serial", &file]));
    assert_eq!((end.code(), end.stdout.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(log.as_path()).unwrap(), "to the file");
    let end = outcome(&mut run(kernel.as_path(), &["--serial", "null"]));
    assert_eq!((end.code(), end.stdout.as_str()), (0, ""));
}

#[test]
fn a_guest_may_have_more_memory_than_the_host_has_free() {
    if !have_kvm() {
        return;
    }
    let kernel = Code::new().print("hello").power_off().kernel();
    let mut command = ringwire(&["run", "--memory", "8G", "--kernel"]);
    let end = outcome(command.arg(kernel.as_path()));
    assert_eq!((end.code(), end.stdout.as_str()), (0, "hello"));
}

#[test]
fn the_probe_answers_in_one_line() {
    let end = outcome(&mut ringwire(&["check", "kvm"]));
    let lines: Vec<_> = end.stdout.lines().collect();
    let yes = "kvm: yes, this host's KVM can boot Linux";
    match end.code() {
        0 => assert_eq!(lines, [yes]),
        _ => assert!(end.code() == 1 && lines.len() == 1 && lines[0].starts_with("kvm: no")),
    }
}

#[test]
fn the_library_is_enough() {
    if !have_kvm() {
        return;
    }
    // Cargo builds examples with the tests, beside the programs.
    let program = PathBuf::from(env!("CARGO_BIN_EXE_ringwire"));
    let example = program.with_file_name("examples").join("embed");
    assert!(
        example.exists(),
        "`cargo test` without --test builds the examples"
    );
    let kernel = Code::new().print("from inside\n").power_off().kernel();
    let end = outcome(std::process::Command::new(example).arg(kernel.as_path()));
    assert_eq!(
        (end.code(), end.stdout.as_str()),
        (0, "from inside\nthe guest powered off\n")
    );
}
