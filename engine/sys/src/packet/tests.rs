use core::net::{IpAddr, Ipv4Addr};

use super::*;

fn config(interface: &str) -> PacketConfig {
    PacketConfig {
        interface: interface.to_owned(),
        mtu: 1500,
        address: [2, 0, 0, 0, 0, 1],
        groups: Vec::new(),
        receive_frames: 16,
        transmit_frames: 16,
    }
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    for name in ["", "no-such-interface", "a-name-that-no-interface-has"] {
        let error = PacketDevice::open(&config(name)).expect_err("there is none");
        assert!(matches!(error, PacketError::NoInterface(_)), "{error}");
    }
    let error = PacketDevice::open(&config("lo")).expect_err("no Ethernet");
    assert!(matches!(error, PacketError::NotEthernet(_)), "{error}");
    let error = PacketError::Mtu { interface: "eth1".to_owned(), has: 1500, wanted: 9000 }.to_string();
    assert!(error.contains("1500") && error.contains("ip link set eth1 mtu 9000"), "{error}");
}

#[test]
fn the_kernels_own_addresses_are_known() {
    let addresses = kernel_addresses().expect("a list");
    let loopback = ("lo".to_owned(), IpAddr::from(Ipv4Addr::LOCALHOST));
    assert!(addresses.contains(&loopback), "{addresses:?}");
}

/// Whether anything changes here is not the test's to say; that nothing is left is.
#[test]
fn news_of_interfaces_are_taken_without_a_wait() {
    let changes = InterfaceChanges::open().expect("everybody may listen");
    changes.clear();
    changes.clear();
}

#[test]
fn a_request_is_the_kernels_structure() {
    let size = core::num::NonZeroU16::new(8948).expect("not zero");
    let request = SendRequest {
        header_len: 54,
        checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        segmentation: Some(Segmentation { format: SegmentFormat::TcpV4, size }),
    };
    let mut expected = vec![1, 1];
    for field in [54_u16, 8948, 34, 16] {
        expected.extend(field.to_ne_bytes());
    }
    assert_eq!(request.header()[..], expected);
    assert_eq!(SendRequest::default().header(), [0; 10]);
}
