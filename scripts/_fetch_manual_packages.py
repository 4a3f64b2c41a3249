"""The packages whose manual pages are asked about, at the versions of Debian 12."""

from __future__ import annotations

from _fetch_packages import Package

_PINNED = """
autoconf         2.71-3                   7d798ed8c21fc7387127de1dfdb4640003d8ba033ae5a1ff29559610cbd0c323
automake         1:1.16.5-1.3             f9a5758d87b5389bf2dbb00cc9c48e0cf59bb0ac842c5ce25d41e4bfa3f2f962
binutils-common  2.40-2                   ab314134f43a0891a48f69a9bc33d825da748fa5e0ba2bebb7a5c491b026f1a0
bsdutils         1:2.38.1-5+deb12u3       6cae172b006a4603e710e046c3acba8d98d36748894cbe3eeda31d415fec331e
btrfs-progs      6.2-1+deb12u2            8b9f4223957c327ea355c66876014f8a0ba6c74964c237266442fffa02fbf62e
coreutils        9.1-1                    61038f857e346e8500adf53a2a0a20859f4d3a3b51570cc876b153a2d51a3091
cryptsetup-bin   2:2.6.1-4~deb12u2        ac25a10b8c7a5fbd4ffe64a830edd24a7e04b3416914bbb096c21e92e15a65d2
debhelper        13.11.4                  bd764e98a9204a4b6b2d9e7b461c50fdae579314309804baff93d21e0498b64b
devscripts       2.23.4+deb12u2           e80e4f4761f8098f4f419130caf6062f4fe68049058eb8794f3668ac565c45c3
diffutils        1:3.8-4                  8bdfedc14c1035e3750e9f055ac9c1ecd9b5d05d9e6dc6466c4e9237eef407dd
dpkg-dev         1.21.23                  43547075395dbe9290e6a5f34e9ba93aa5dcf7dfc5698c3d30cc3c85e5f7e3de
dpkg             1.21.23                  f89e9f8d1a4a50ade44be3ed59a6ec55460fce205d2f8520c5c492137c5b609b
e2fsprogs        1.47.0-2+b2              fedd424691c08ef0739729026be298e7be8236337bf8e031b3c7ec66794e6fc2
fail2ban         1.0.2-2                  9717b7aeef7b00f0df4c76045cd6dab2755cbe9fc99dbfe3cd114126880ec7f7
findutils        4.9.0-4                  5dd86bd0af4aa73f067dfd6b8339dd868f2dd84056aa79db29d1206d4fbc5e04
firewalld        1.3.3-1~deb12u2          07b3c17c7a24c428bad743c8ad5a16cae52304f73e4b762edd51aa5256609d7b
flatpak          1.14.10-1~deb12u2        8addbc287f77fb90d55896e758a567cda20150b5937a8579373b25750fedbf57
gettext          0.21-12                  8c1f9d43575373ce311f51d00a13afbb4888d63aa559a93a3472f5d77513b60c
git-man          1:2.39.5-0+deb12u3       904dbd8dbc3db34c6780fb0abfe35816d4a90a490126ef0a055a77a0c5dcab82
graphviz         2.42.2-7+deb12u1         b1bb825313d4d0ee494806438e2a875ad22fcf0450d42358f90a0d911483dc1c
grep             3.8-5                    3264acea728df3c48a54f20e9291b965130e306b9d00adac76647049da7196df
groff            1.22.4-10                c30d56dad45ab7fe8d57f545381203297b23fabd7475e5acd133f15dcaef2355
gzip             1.12-1                   eabec1dde2834f72540d7b93fc5df2625f52611c06d93d61f5cdb12480e0e6a3
hashdeep         4.4-7.1+b1               1bdd93353f3009b6096fa7a1332244e488fb3806754174ee14bd8090076bff91
iproute2         6.1.0-3                  1204b29e916e836267096d0b9d778106752f821ebde0d281539008b4386d9070
iptables         1.8.9-2                  2928d3ca6ca8a3dc3f423f6752822b1f3614a5ba609ff7806bcba4449ffe90e1
kmod             30+20221128-1            e21ae247204fe8a14ac29a5f510227d45b41cd3c41059cc942f2502d25765165
libtiff-tools    4.5.0-6+deb12u4          0b3e121276452026ee2ad075dec469015e3ca41da9eca002ea9a113c431ad7af
mount            2.38.1-5+deb12u3         456ed2c62f884bc1133b6969d4d1eb2e6d8581076b00b4c8d700151155270a7a
openssl          3.0.20-1~deb12u2         4d218561dc838de081de97f54584c4a29e77e26c7ed9fe3440d776d8e6071bf9
passwd           1:4.13+dfsg1-1+deb12u2   fb787363372903e03627e53fd483e51dfb6861047a1e02c7d5a5f27d66546d08
poppler-utils    22.12.0-2+deb12u2        237d8ae3012bb0b275b681bb7fbd00ee591215e9dc276231d7e4f7bb64efacea
procps           2:4.0.2-3                d9d0e75779cb79af869181f17b93c5c263a2b89cac6a0193c436160a4483ddc1
psmisc           23.6-1                   9d02f654bdf280a6622a9b1371f7a1fa44546702d11991e438558bc259df7b69
rpm              4.18.0+dfsg-1+deb12u1    cd9d36a9420e6ceded71605a8584f5df5a35e2e9d8910929f375dc6c9ce46fdc
samba-common-bin 2:4.17.12+dfsg-0+deb12u4 f918c6221fd51f5390c6cdf3f9c28aa75ae00f5abb2f30c3e73d5f94ef1b0a67
sed              4.9-1+deb12u1            fd557efeee8aae4619c2cb7f68aadccb804322ad4a99ab048aaae5901d253885
sg3-utils        1.46-3                   1ba7fd275f90fa9d030fa9df021d66aa970910967971a793c1ba51a930a8c4f9
squashfs-tools   1:4.5.1-1                3f96b16c9b985ea03cf70f90a05f4dc5c15039e845326f8f4293a3280fd0b2f4
sysstat          12.6.1-1                 b9dbb951ab04ef779225907b29cc29be59ecfa7c4bf9cd97ea1ae51a15091648
systemd          252.39-1~deb12u2         286f879c537bfba92e59d580c075ad20ab49020244c79634656850a306dd462b
tar              1.34+dfsg-1.2+deb12u1    24fb92e98c2969171f81a8b589263d705f6b1670f95d121cd74c810d4605acc3
texinfo          6.8-6+b1                 e397ec5b52f54db5ad82b1f95e62f2ae85fe2c728f3cf94a8af77bdf57340389
udev             252.39-1~deb12u2         7593d55752f2d7f20fefc5564ead8b10a536bc945f96d942e1c976f2154281cb
util-linux       2.38.1-5+deb12u3         8eb241ff24b2e1ee9c0373f4fc9bc728b85bf5966c1496154df7da01c0e42f34
vorbis-tools     1.4.2-1+b1               3645cb7976a0f7573ff3a839e818c586b7a771cc05135e1bf05a5848cd7fc381
webp             1.2.4-0.2+deb12u1        4bc8dc1ba680a5bc07d0895221f0b76d142787465f3e53005df69a9ca6fa5bab
xfsprogs         6.1.0-1                  e2d2a60dd29d568b5724b66d9ff864305cec61a15e6ba842079398524e1c5718
zstd             1.5.4+dfsg2-5            3f6f833ae2fd533a0c9238310aef1148f51a64aa5d5f1278451ddc793d4d6d15
"""

_LICENCES = {
    "Apache-2.0": "openssl",
    "BSD-3-clause": "passwd webp",
    "BSD-3-clause or GPL-2": "zstd",
    "EPL-1.0": "graphviz",
    "GPL": "vorbis-tools",
    "GPL and BSD": "sg3-utils",
    "GPL-2": "e2fsprogs git-man iproute2 iptables xfsprogs",
    "GPL-2 and LGPL-2.1+": "btrfs-progs",
    "GPL-2 or GPL-3": "poppler-utils",
    "GPL-2+": "debhelper dpkg-dev dpkg fail2ban firewalld psmisc squashfs-tools sysstat",
    "GPL-2+ and GFDL-1.3+": "automake",
    "GPL-2+ and LGPL-2+": "rpm",
    "GPL-2+ and LGPL-2.1+": "cryptsetup-bin procps",
    "GPL-2+ and others": "devscripts",
    "GPL-2+, BSD-3-clause and others": "bsdutils mount util-linux",
    "GPL-3+": "autoconf gettext grep groff gzip samba-common-bin tar texinfo",
    "GPL-3+ and GFDL": "binutils-common",
    "GPL-3+ and GFDL-1.3": "coreutils diffutils",
    "GPL-3+ and GFDL-1.3+": "findutils sed",
    "LGPL-2.1+": "flatpak systemd udev",
    "LGPL-2.1+ and GPL-2+": "kmod",
    "libtiff's own, like MIT": "libtiff-tools",
    "public domain": "hashdeep",
}
"""Under what most of a package stands: its copyright file says more."""

_LICENCE_OF = {package: licence for licence, packages in _LICENCES.items() for package in packages.split()}
PACKAGES = tuple(
    Package("debian", name, version, sha256, _LICENCE_OF[name])
    for name, version, sha256 in (line.split() for line in _PINNED.strip().splitlines())
)

HELD_OUT_PACKAGES = {
    "validation": ("cryptsetup-bin", "dpkg", "dpkg-dev", "gettext", "grep", "procps", "rpm"),
    "test": ("devscripts", "diffutils", "e2fsprogs", "passwd", "poppler-utils", "systemd", "tar", "udev"),
}
"""Whole packages, in each part some of every way to write a page: by hand, by help2man, from DocBook, from
AsciiDoc, from POD. Named, not drawn: a package's pages share options and paragraphs, and there are too few of
them, of too unequal sizes, for a hash to give parts of a fair size."""
