// The plugin of the Go gateway: the same filter as guests/*/api-key, with JSON as input and output.
// Go writes header names as `X-Api-Key`.
import { Config, Host } from "@extism/as-pdk";
import { JSON } from "json-as";

@json
class RequestPayload {
  method: string = "";
  path: string = "";
  headers: Map<string, string> = new Map<string, string>();
  body: string = "";
}

@json
class ResponseAction {
  status_code: i32 = 0;
  headers: Map<string, string> = new Map<string, string>();
  body: string = "";
  block: bool = false;
}

export function handler(): i32 {
  const request = JSON.parse<RequestPayload>(Host.inputString());
  const action = new ResponseAction();
  const key = Config.get("key");
  if (!request.headers.has("X-Api-Key") || request.headers.get("X-Api-Key") != key) {
    action.block = true;
    action.status_code = 401;
    action.headers.set("content-type", "application/json");
    action.body = '{"error":"missing or wrong api key"}';
  } else {
    action.headers.set("X-User", "alice");
    if (request.headers.has("Authorization")) action.headers.set("Authorization", "REDACTED");
    if (request.headers.has("Cookie")) action.headers.set("Cookie", "REDACTED");
  }
  Host.outputString(JSON.stringify<ResponseAction>(action));
  return 0;
}

export function stop(_message: string | null, _file: string | null, _line: u32, _column: u32): void {
  unreachable();
}
