"""The login that Streamlit's OIDC keeps in its signed cookie, read the same way for pages and routes. Draws nothing."""

import importlib.util
import json
from collections.abc import Mapping

from streamlit.auth_util import get_cookie_with_chunks, validate_auth_credentials
from streamlit.errors import StreamlitAuthError
from streamlit.web.server.server_util import get_cookie_secret
from streamlit.web.server.starlette.starlette_app_utils import decode_signed_value

from app.access import Gate, Login, Right
from trainer_core.spec.errors import UserError

USER_COOKIE = "_streamlit_user"


def check() -> None:
    """Raise UserError where ``st.login`` cannot work: it needs Authlib, and a provider in ``secrets.toml``."""
    if importlib.util.find_spec("authlib") is None:
        raise UserError("--access needs Authlib for the login: pip install 'hybrid-predictive-trainer[login]'")
    try:
        validate_auth_credentials("default")
    except StreamlitAuthError as error:
        raise UserError(
            f"--access needs a provider for the login (docs/access.md): {' '.join(str(error).split())}"
        ) from None


def login_of(cookies: Mapping[str, str], secret: str) -> Login | None:
    """Who is logged in; None: nobody, or a cookie that ``secret`` did not sign."""

    def single(name: str) -> bytes | None:
        value = cookies.get(name)
        return decode_signed_value(secret, name, value.encode("latin-1")) if isinstance(value, str) else None

    try:
        found = get_cookie_with_chunks(single, USER_COOKIE)
        said = json.loads(found) if found else {}
    except (ValueError, UnicodeError):
        return None
    if not isinstance(said, dict) or not said.get("is_logged_in") or not isinstance(said.get("email"), str):
        return None
    return Login(said["email"], said.get("email_verified", True) is True)


def right_of(cookies: Mapping[str, str], gate: Gate) -> Right:
    """What a browser with these cookies may do now."""
    session = cookies.get(gate.cookie)
    login = login_of(cookies, get_cookie_secret()) if gate.policy is not None else None
    return gate.right(session if isinstance(session, str) else None, login)
