"""The device link: events and handshakes per second of the server's CPU, memory, restart."""

from __future__ import annotations

import os
import time

from bench.harness import LOAD_CORE, Result, cpu_seconds, resident_kb, use_core, wirechamber
from bench.load.devices import Fleet
from wirechamber.services.serverkeys import ServerKeys
from pathlib import Path

PUBLISHING = 1_000
IDLE = 10_000
SECONDS = 8.0


def run() -> list[Result]:
    use_core(LOAD_CORE)()
    results: list[Result] = []
    with wirechamber(provisioning="true", udp_port="0", publish_rate="1000000", publish_burst="1000000", log_level="warning" if 0 else "info") as server:
        key = ServerKeys(Path(server.environment["WIRECHAMBER_DATA"])).ec().public_key()
        port = int((Path(server.environment["WIRECHAMBER_DATA"]) / "server.log").read_text().partition('"udp": ')[2].partition(",")[0])
        fleet = Fleet(port, key, 900)
        before, started = cpu_seconds(server.pid), time.perf_counter()
        fleet.handshakes(PUBLISHING)
        spent = cpu_seconds(server.pid) - before
        print(f"  handshakes: {PUBLISHING / spent:,.0f} per CPU s, {PUBLISHING / (time.perf_counter() - started):,.0f} per s")
        before = cpu_seconds(server.pid)
        fleet.hello()
        print(f"  hello: {(cpu_seconds(server.pid) - before) / PUBLISHING * 1e6:.0f} us each")
        fleet.publish(1.0)
        before, started = cpu_seconds(server.pid), time.perf_counter()
        if os.environ.get("SPY"):
            import subprocess
            spy = subprocess.Popen(["py-spy", "record", "-d", "6", "-r", "500", "-p", str(server.pid), "-f", "raw", "-o", os.environ["SPY"], "-t", "--gil"])
        def threads():
            out={}
            for t in Path(f"/proc/{server.pid}/task").iterdir():
                f=(t/"stat").read_text(); name=f[f.index("(")+1:f.rindex(")")]; x=f.rpartition(")")[2].split()
                out[t.name+name]=(int(x[11])/100,int(x[12])/100)
            return out
        t0=threads()
        count = fleet.publish(SECONDS)
        for k,(u,sy) in threads().items():
            if k in t0: print("   ", k, f"user {u-t0[k][0]:.2f} sys {sy-t0[k][1]:.2f}  per event {((u-t0[k][0])+(sy-t0[k][1]))/count*1e6:.1f} us")
        spent = cpu_seconds(server.pid) - before
        print(f"  {count} events, {count / (time.perf_counter() - started):,.0f} per s, {count / spent:,.0f} per CPU s, {spent / count * 1e6:.1f} us each")
        fleet.close()
    return results


if __name__ == "__main__":
    run()
