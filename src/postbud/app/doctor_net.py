"""The doctor's look at the world: the way out to port 25, names both ways, SPF, DKIM, DMARC, how bounces come, blocklists.

Asks DNS and opens connections to the probes of the settings; sends no mail. RFC 1912 s2.1 (forward and reverse), 5321 s2.3.5
(HELO), 5782 (blocklists), 7208, 9989.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from ipaddress import ip_address

from postbud.app.config import Settings
from postbud.app.doctor_findings import FAIL, OK, WARN, Finding
from postbud.console.domains.looking import look_at_dmarc
from postbud.net.dns import Found, Missing, Resolver, Unavailable
from postbud.net.spf import SpfCheck

_CONNECT_SECONDS = 8.0
_TXT_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Source:
    """An address that mail leaves from, and the name it gives there."""

    address: str
    helo: str


async def look_at_net(settings: Settings, resolver: Resolver) -> list[Finding]:
    """Look at names, lists and the way out."""
    findings, sources = await _sources(settings, resolver)
    findings += await _way_out(settings, sources)
    for source in sources:
        findings.append(await _reverse(source, resolver))
        findings.append(await _helo(source, resolver))
        findings.append(await _spf(settings, source, resolver))
        findings += await _lists(settings, source, resolver)
    findings += await _bounces(settings, resolver)
    findings += await _keys(settings, resolver)
    findings.append(await _dmarc(settings, resolver))
    return findings


async def _sources(settings: Settings, resolver: Resolver) -> tuple[list[Finding], list[Source]]:
    named = [Source(table.address, table.helo or settings.hostname) for table in settings.config.source]
    if named:
        return [], named
    found = [text for kind in ("A", "AAAA") for text in await _texts(resolver, settings.hostname, kind)]
    if not found:
        told = f"{settings.hostname} has no address, and no [[source]] says where mail leaves from"
        return [Finding("hostname", FAIL, told, "publish A (and AAAA) records of relay.hostname")], []
    return [Finding("hostname", OK, f"{settings.hostname} is {', '.join(found)}")], [
        Source(one, settings.hostname) for one in found
    ]


async def _way_out(settings: Settings, sources: list[Source]) -> list[Finding]:
    findings = []
    for source in sources:
        said = [await _greeting(probe, source.address) for probe in settings.config.doctor.probes]
        good = [one for one in said if one.startswith("220")]
        if good or not said:
            state = OK if said else WARN
            findings.append(
                Finding("port 25", state, f"{source.address} reaches {good[0][4:64]}" if good else "no probe is named")
            )
        else:
            fix = "ask the provider of this machine to open port 25 out, or send through a smart host (relay.route)"
            findings.append(Finding("port 25", FAIL, f"{source.address} reaches nobody: {said[0][:_TXT_SHOWN]}", fix))
    return findings


async def _greeting(probe: str, address: str) -> str:
    host, _, port = probe.rpartition(":")
    writer = None
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            local = None if ip_address(address).is_loopback else (address, 0)
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), local_addr=local)
            line = await reader.readline()
            writer.write(b"QUIT\r\n")
            return line.decode("latin-1").strip() or "closed without a word"
    except (OSError, ValueError) as error:
        return f"{probe}: {str(error) or type(error).__name__}"
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _reverse(source: Source, resolver: Resolver) -> Finding:
    name = ip_address(source.address).reverse_pointer
    answer = await resolver.lookup(name, "PTR")
    if isinstance(answer, Unavailable):
        return Finding("ptr", WARN, f"{source.address}: {answer.why}", "look at dns.nameservers")
    names = answer.texts if isinstance(answer, Found) else ()
    if not names:
        return Finding("ptr", FAIL, f"{source.address} has no reverse name", f"have its provider set PTR to {source.helo}")
    for one in names:
        if source.address in await _addresses(resolver, one):
            return Finding("ptr", OK, f"{source.address} is {one}, and back")
    told = f"{source.address} is {names[0]}, which is another address"
    return Finding("ptr", FAIL, told, f"publish {names[0]} with the address {source.address}, or have PTR set to {source.helo}")


async def _helo(source: Source, resolver: Resolver) -> Finding:
    found = await _addresses(resolver, source.helo)
    if source.address in found:
        return Finding("helo", OK, f"{source.helo} is {source.address}")
    told = f"{source.helo} is {', '.join(sorted(found))}" if found else f"{source.helo} has no address"
    return Finding(
        "helo", FAIL, f"{told}, but mail leaves from {source.address}", "publish its address, or set helo of the [[source]]"
    )


async def _spf(settings: Settings, source: Source, resolver: Resolver) -> Finding:
    domain = settings.config.relay.bounce_domain or settings.hostname
    result = await SpfCheck(resolver.lookup, source.address).result(domain)
    if result == "pass":
        return Finding("spf", OK, f"{domain} lets {source.address} send")
    family = "ip6" if ":" in source.address else "ip4"
    fix = f'publish TXT "v=spf1 {family}:{source.address} -all" at {domain}, or add {family}:{source.address} to what is there'
    state = WARN if result in {"temperror", "unknown"} else FAIL
    return Finding("spf", state, f"{domain} says {result} of {source.address}", fix)


async def _lists(settings: Settings, source: Source, resolver: Resolver) -> list[Finding]:
    backwards = ip_address(source.address).reverse_pointer.rpartition(".")[0].rpartition(".")[0]
    findings = []
    for zone in settings.config.doctor.blocklists:
        answer = await resolver.lookup(f"{backwards}.{zone}", "A")
        listed = [text for text in (answer.texts if isinstance(answer, Found) else ()) if text.startswith("127.0.")]
        if listed:
            why = await _texts(resolver, f"{backwards}.{zone}", "TXT")
            told = f"{source.address} is on {zone}" + (f": {why[0][:_TXT_SHOWN]}" if why else "")
            findings.append(Finding("blocklist", FAIL, told, f"find what was sent, mend it, then ask {zone} to take it off"))
    if settings.config.doctor.blocklists and not findings:
        findings.append(Finding("blocklist", OK, f"{source.address} is on none of {len(settings.config.doctor.blocklists)}"))
    return findings


async def _bounces(settings: Settings, resolver: Resolver) -> list[Finding]:
    domain = settings.config.relay.bounce_domain
    if not domain:
        told = "no bounce domain: bounces go to the submitters, and are not understood here"
        return [Finding("bounces", WARN, told, "set relay.bounce_domain and point its MX here")]
    answer = await resolver.lookup(domain, "MX")
    hosts = [one.host for one in answer.exchangers] if isinstance(answer, Found) else []
    if any(hosts):
        return [Finding("bounces", OK, f"mail for {domain} goes to {', '.join(hosts)}")]
    return [Finding("bounces", FAIL, f"{domain} has no MX", f"publish MX 10 {settings.hostname}. at {domain}")]


async def _keys(settings: Settings, resolver: Resolver) -> list[Finding]:
    """Look for the records of our own domain's keys, which notices and reports are signed with."""
    from postbud.app.own_domain import own_records  # noqa: PLC0415 (loads Django)

    findings = []
    for name, value in await asyncio.to_thread(own_records, settings):
        texts = await _texts(resolver, name, "TXT")
        public = value.rpartition("p=")[2]
        if any("".join(text.split()).rpartition("p=")[2].rstrip(";") == public for text in texts):
            findings.append(Finding("dkim", OK, f"{name} is published"))
        else:
            told = f"{name} holds another key" if texts else f"{name} is not published"
            findings.append(Finding("dkim", FAIL, told, f'publish TXT "{value}" there'))
    return findings


async def _dmarc(settings: Settings, resolver: Resolver) -> Finding:
    dmarc = await look_at_dmarc(settings.hostname, resolver.lookup)
    if dmarc.policy:
        return Finding("dmarc", OK, f"{dmarc.policy}, said at _dmarc.{dmarc.found_at}")
    if dmarc.unknown:
        return Finding("dmarc", WARN, "name servers do not answer", "look at dns.nameservers")
    return Finding(
        "dmarc", WARN, f"{settings.hostname} has none", f'publish TXT "v=DMARC1; p=none" at _dmarc.{settings.hostname}'
    )


async def _addresses(resolver: Resolver, name: str) -> set[str]:
    return {text for kind in ("A", "AAAA") for text in await _texts(resolver, name, kind)}


async def _texts(resolver: Resolver, name: str, kind: str) -> tuple[str, ...]:
    answer = await resolver.lookup(name, kind)
    match answer:
        case Found():
            return answer.texts
        case Missing() | Unavailable():
            return ()
