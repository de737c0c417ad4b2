// The job of `just bench-abi` in TypeScript, through plain functions.
import { header, removeHeader, setHeader } from "witgate:abi/exchange@0.1.0";

export const plainHandler = {
  handle() {
    if (header("x-api-key") !== "s3cret") return { tag: "respond", val: { status: 401, headers: [], body: new Uint8Array() } };
    setHeader("x-user", "alice");
    removeHeader("cookie");
    setHeader("authorization", "Bearer internal");
    return { tag: "proceed" };
  },
};
