"""Authlib and requests-oauthlib against the authority. The credential comes in the environment; prints how many checks were made."""

import os

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from joserfc import jwt
from joserfc.jwk import KeySet
from oauthlib.oauth2 import BackendApplicationClient
from oauthlib.oauth2.rfc6749.errors import InvalidClientError, InvalidScopeError
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session as RequestsSession

ISSUER, CLIENT_ID, CLIENT_SECRET = (os.environ[name] for name in ("ISSUER", "CLIENT_ID", "CLIENT_SECRET"))
DEALS = f"{ISSUER}/deals/7"
done = 0


def same(found, wanted, what=""):
    global done
    assert found == wanted, f"{what}: {found!r} is not {wanted!r}"
    done += 1


def fails(kind, act):
    global done
    try:
        act()
    except kind as error:
        done += 1
        return error
    raise AssertionError(f"{kind} was not raised")


metadata = AuthorizationServerMetadata(requests.get(f"{ISSUER}/.well-known/oauth-authorization-server").json())
metadata.validate()
same(metadata["issuer"], ISSUER)
token_url, revoke_url, introspect_url = (
    metadata[f"{name}_endpoint"] for name in ("token", "revocation", "introspection")
)

# Authlib
for method in ("client_secret_basic", "client_secret_post"):
    session = OAuth2Session(CLIENT_ID, CLIENT_SECRET, scope="read:deals", token_endpoint_auth_method=method,
                            revocation_endpoint_auth_method=method)
    token = session.fetch_token(token_url, grant_type="client_credentials")
    same((token["token_type"], token["expires_in"]), ("Bearer", 3600), method)
    keys = KeySet.import_key_set(requests.get(metadata["jwks_uri"]).json())
    decoded = jwt.decode(token["access_token"], keys, algorithms=["ES256"])
    same((decoded.header["typ"], decoded.claims["client_id"]), ("at+jwt", CLIENT_ID))
    same(session.get(DEALS).status_code, 200)
    same(session.get(f"{ISSUER}/users/1").status_code, 403)
    same(session.introspect_token(introspect_url, token=token["access_token"]).json()["active"], True)
    same(session.revoke_token(revoke_url, token=token["access_token"]).status_code, 200)
    same(session.introspect_token(introspect_url, token=token["access_token"]).json(), {"active": False})
    same(session.get(DEALS).status_code, 401)
    wrong = OAuth2Session(CLIENT_ID, "wrong", token_endpoint_auth_method=method)
    same(fails(OAuthError, lambda: wrong.fetch_token(token_url, grant_type="client_credentials")).error, "invalid_client")
    beyond = OAuth2Session(CLIENT_ID, CLIENT_SECRET, scope="read:users", token_endpoint_auth_method=method)
    same(fails(OAuthError, lambda: beyond.fetch_token(token_url, grant_type="client_credentials")).error, "invalid_scope")


# requests-oauthlib
def session(scope=None):
    return RequestsSession(client=BackendApplicationClient(client_id=CLIENT_ID, scope=scope))


in_header = {"auth": HTTPBasicAuth(CLIENT_ID, CLIENT_SECRET)}
in_body = {"include_client_id": True, "client_secret": CLIENT_SECRET}
header_and_id = {"auth": HTTPBasicAuth(CLIENT_ID, CLIENT_SECRET), "include_client_id": True}
for how in (in_header, in_body, header_and_id):
    for scope in (None, ["read:deals"], ["read:activity", "read:deals"]):
        api = session(scope)
        token = api.fetch_token(token_url, **how)
        same((token["token_type"], api.get(DEALS).status_code), ("Bearer", 200), f"{scope}")
fails(InvalidClientError, lambda: session().fetch_token(token_url, auth=HTTPBasicAuth(CLIENT_ID, "wrong")))
fails(InvalidClientError, lambda: session().fetch_token(token_url, include_client_id=True, client_secret="wrong"))
fails(InvalidScopeError, lambda: session(["read:users"]).fetch_token(token_url, **in_body))
print(f"{done} checks")
