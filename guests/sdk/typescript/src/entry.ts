// The exports of a filter: they call the author's handler and turn its result into the action that
// the WIT expects. The entry that `componentize` generates uses them.
//
// This module does not know any particular filter.
import type { RequestAction, ResponseAction } from "witgate:gateway/types@0.1.0";
import { failureMessage } from "./failure.ts";
import { markRunning } from "./globals.ts";
import type { OnRequest, OnResponse } from "./index.ts";
import { ReadonlyRequest, Request, type RequestEdit } from "./request.ts";
import type { Response } from "./response.ts";

const PROCEED = { tag: "proceed" } as const;

/** Makes the export `request-handler`. A string that it throws is the `err` of that function. */
export function requestHandler(onRequest: OnRequest, edit: RequestEdit): { handleRequest(): RequestAction } {
  const request = new Request(edit);
  return {
    handleRequest(): RequestAction {
      markRunning();
      try {
        const reply = onRequest(request);
        return reply === undefined || reply === null ? PROCEED : { tag: "respond", val: reply };
      } catch (failure) {
        throw failureMessage(failure);
      }
    },
  };
}

/** Makes the export `response-handler`. A string that it throws is the `err` of that function. */
export function responseHandler(onResponse: OnResponse, response: Response): { handleResponse(): ResponseAction } {
  const request = new ReadonlyRequest();
  return {
    handleResponse(): ResponseAction {
      markRunning();
      try {
        const reply = onResponse(response, request);
        return reply === undefined || reply === null ? PROCEED : { tag: "replace", val: reply };
      } catch (failure) {
        throw failureMessage(failure);
      }
    },
  };
}
