//! `make compliance`: RFC 7143 and RFC 7144 requirement by requirement, with the code that cites it and the tests that ask for it.

use std::process::ExitCode;

use tests::compliance::{How, look};

fn main() -> ExitCode {
    let report = look();
    let (mut covered, mut tested, mut excepted) = (0, 0, 0);
    for requirement in &report.requirements {
        println!("{:10} {}", requirement.section, requirement.text);
        match &requirement.how {
            How::Excepted(reason) => {
                excepted += 1;
                println!("         excepted: {reason}");
            }
            How::Tested(tests) => {
                let places = report.places(requirement);
                covered += usize::from(!places.is_empty());
                tested += usize::from(!tests.is_empty());
                println!("         code: {}", places.join(" "));
                println!("         tests: {}", tests.join(" "));
            }
        }
    }
    let faults = report.faults();
    faults.iter().for_each(|fault| println!("MISSING  {fault}"));
    println!(
        "{} requirements: {covered} covered, {tested} tested, {excepted} excepted",
        report.requirements.len()
    );
    ExitCode::from(u8::from(!faults.is_empty()))
}
