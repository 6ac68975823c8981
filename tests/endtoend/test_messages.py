"""Messages passed on to other systems: as they came, in order, retried, and one for each state of a study."""

from __future__ import annotations

import socketserver
import threading
from pathlib import Path

import hl7
from hl7 import parse

from archive.index import State
from tests.endtoend.test_matching import ALL, acquire
from tests.endtoend.test_orders import Site, today
from tests.faults.daemon import free_port, wait_until
from tests.hl7.made import PATIENT, message


class Ris:
    """A receiver of messages that shares no code with the sender but the library both parse with."""

    def __init__(self, port: int, refuse: bytes = b"") -> None:
        self.got: list[hl7.Message] = []
        ris = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                data = b""
                while piece := self.request.recv(4096):
                    data += piece
                    while b"\x1c\r" in data:
                        one, _, data = data.partition(b"\x1c\r")
                        self.request.sendall(ris.take(one.lstrip(b"\x0b")))

        self._refuse = refuse
        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, data: bytes) -> bytes:
        found = parse(data.decode())
        code = "AR" if self._refuse and self._refuse in data else "AA"
        if code == "AA":
            self.got.append(found)
        control = str(found["MSH.F10"])
        return f"\x0bMSH|^~\\&|RIS|||| ||ACK|1|P|2.5\rMSA|{code}|{control}|no thanks\r\x1c\r".encode()

    def kinds(self) -> list[str]:
        return [f"{found['MSH.F9.R1.C1']} {found['MSH.F10']}" for found in self.got]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_messages_are_passed_on_in_order_and_states_of_studies_are_told(tmp_path: Path) -> None:
    port = free_port()
    forward = [
        {"name": "RIS", "host": "127.0.0.1", "port": port},
        {"name": "DEAD", "host": "127.0.0.1", "port": free_port(), "send": ["orders"]},
    ]
    site = Site(
        tmp_path / "site",
        peers={"SENDER": {"host": "127.0.0.0/8", "allow": ALL}},
        studies={"ready_after": "1h", "on_association_close": "0s"},
    )
    site.daemon.configure({"hl7": {"forward": forward}})
    with site.daemon:
        for number in (1, 2, 3):
            assert site.send(today(number)) == "AA"
        assert site.send(message("ADT^A08", ("PID", PATIENT), control="A1")) == "AA"
        wait_until(lambda: any(task.reason for task in site.index.tasks(kind="hl7")), 20)
        ris = Ris(port, refuse=b"|M2|")
        wait_until(lambda: len(ris.got) >= 3, 30)
        assert ris.kinds() == ["ORM M1", "ORM M3", "ADT A1"]
        (refused,) = site.index.tasks(kind="hl7", state=State.FAILED)
        assert (refused.lane, "no thanks" in refused.reason) == ("RIS", True)
        assert {task.lane for task in site.index.tasks(kind="hl7", state=State.WAITING)} == {"DEAD"}

        acquire(site, tmp_path, "1.2.93", PatientName="Müller^Jürgen=山田", PatientID="P^1", AccessionNumber="ACC1")
        wait_until(lambda: len(ris.got) >= 4, 30)
        told = ris.got[-1]
        assert (str(told["ORC.F1"]), str(told["ORC.F5"]), str(told["OBR.F18"])) == ("SC", "A", "ACC1")
        assert str(told["ZDS.F1.R1.C1"]) == "1.2.93"
        assert str(told["PID.F5.R1.C1"]) == "Müller" and str(told["PID.F3.R1.C1"]) == "P^1"
        ris.stop()
