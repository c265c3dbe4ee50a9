"""A small OpenID Connect provider on loopback: discovery, a page to log in on, tokens signed with RS256, keys, logout.

The authorization code flow with PKCE as OpenID Connect Core 1.0 has it, strict in what it takes: a client, a redirect
address or a code that is not known ends in 400. Who has the browser may be anybody of ``PEOPLE``.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwk, jwt

CLIENT, SECRET = "hybrid", "a client's secret of the tests"
PEOPLE: dict[str, dict[str, object]] = {
    "ann": {"email": "ann@example.org", "email_verified": True},
    "bob": {"email": "bob@example.org", "email_verified": True},
    "eve": {"email": "eve@evil.example", "email_verified": True},
    "una": {"email": "ann@example.org", "email_verified": False},
    "forged": {"email": "ann@example.org", "email_verified": True},
}
"""By account. The token of ``forged`` is signed with a key that the provider does not publish."""


@dataclass
class Granted:
    """A code that was given out and not used."""

    account: str
    asked: dict[str, str]


@dataclass
class Provider:
    """The provider, served by a thread of its own until it is left.

    ``redirect_uri``: the one address that it leads back to.
    """

    redirect_uri: str
    logged_out: list[str] = field(default_factory=list)
    """Subjects whose logout was asked for with their own token."""

    def __post_init__(self) -> None:
        self.key = jwk.RSAKey.generate_key(2048, {"kid": "known", "use": "sig", "alg": "RS256"})
        self.other_key = jwk.RSAKey.generate_key(2048, {"kid": "known", "use": "sig", "alg": "RS256"})
        self.granted: dict[str, Granted] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> "Provider":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def metadata(self) -> dict[str, object]:
        """What discovery says."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "end_session_endpoint": f"{self.issuer}/logout",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "code_challenge_methods_supported": ["S256"],
        }

    def page(self, asked: dict[str, str]) -> str:
        """Who do you want to be? Raises ValueError for a request of an unknown client."""
        wanted = {"client_id": CLIENT, "redirect_uri": self.redirect_uri, "response_type": "code",
                  "code_challenge_method": "S256"}  # fmt: skip
        _same({key: asked.get(key) for key in wanted}, wanted)
        if "openid" not in asked.get("scope", "").split() or not all(asked.get(key) for key in ("state", "nonce")):
            raise ValueError("scope openid, a state and a nonce are needed")
        links = (
            f'<li><a href="/chosen?{escape(urlencode({**asked, "account": account}), quote=True)}">{account}</a></li>'
            for account in PEOPLE
        )
        return f"<!doctype html><title>Provider</title><h1>Who are you?</h1><ul>{''.join(links)}</ul>"

    def grant(self, asked: dict[str, str]) -> str:
        """Where the chosen account is led, with a code."""
        account = asked.pop("account")
        self.page(asked)
        code = secrets.token_urlsafe(16)
        self.granted[code] = Granted(account, asked)
        return f"{self.redirect_uri}?{urlencode({'code': code, 'state': asked['state']})}"

    def tokens(self, form: dict[str, str], authorization: str) -> dict[str, object]:
        """What a code is worth, once. Raises ValueError."""
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        _same(authorization, f"Basic {basic}")
        _same((form.get("grant_type"), form.get("redirect_uri")), ("authorization_code", self.redirect_uri))
        granted = self.granted.pop(form.get("code", ""), None)
        if granted is None:
            raise ValueError("no such code, or it was used")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        _same(base64.urlsafe_b64encode(digest).rstrip(b"=").decode(), granted.asked["code_challenge"])
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": granted.account, "aud": CLIENT, "iat": now, "exp": now + 300,
                  "nonce": granted.asked["nonce"], **PEOPLE[granted.account]}  # fmt: skip
        key = self.other_key if granted.account == "forged" else self.key
        id_token = jwt.encode({"alg": "RS256", "kid": "known"}, claims, key)
        return {"access_token": secrets.token_urlsafe(16), "token_type": "Bearer", "expires_in": 300,
                "id_token": id_token}  # fmt: skip

    def log_out(self, asked: dict[str, str]) -> str:
        """Where somebody is led who has logged out."""
        _same((asked.get("client_id"), asked.get("post_logout_redirect_uri")), (CLIENT, self.redirect_uri))
        token = jwt.decode(asked["id_token_hint"], self.key, algorithms=["RS256"])
        self.logged_out.append(str(token.claims["sub"]))
        return self.redirect_uri


def _same(found: object, wanted: object) -> None:
    if found != wanted:
        raise ValueError(f"{found!r}: must be {wanted!r}")


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            asked = {key: values[0] for key, values in parse_qs(address.query).items()}
            self._guarded(lambda: self._got(address.path, asked))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {key: values[0] for key, values in parse_qs(body).items()}
            self._guarded(lambda: self._json(provider.tokens(form, self.headers.get("Authorization", ""))))

        def _got(self, path: str, asked: dict[str, str]) -> None:
            match path:
                case "/.well-known/openid-configuration":
                    self._json(provider.metadata)
                case "/jwks":
                    self._json(jwk.KeySet([provider.key]).as_dict(private=False))
                case "/authorize":
                    self._answer(200, provider.page(asked), "text/html; charset=utf-8")
                case "/chosen":
                    self._lead(provider.grant(asked))
                case "/logout":
                    self._lead(provider.log_out(asked))
                case _:
                    self._answer(404, "no such page", "text/plain")

        def _guarded(self, answer: Any) -> None:
            try:
                answer()
            except (ValueError, KeyError) as error:
                self._answer(400, f"{type(error).__name__}: {error}", "text/plain")

        def _json(self, value: object) -> None:
            self._answer(200, json.dumps(value), "application/json")

        def _lead(self, to: str) -> None:
            self.send_response(302)
            self.send_header("Location", to)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _answer(self, status: int, text: str, kind: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the tests say what went wrong."""

    return Handler
