/** SETTINGS of the peer (RFC 9113, 6.5), checked. */
import {
  FRAME_BYTES_DEFAULT,
  FRAME_BYTES_LIMIT,
  H2_ERROR,
  Http2Error,
  SETTING,
  WINDOW_BYTES_LIMIT,
} from './frame.js';

/** What a SETTINGS frame says of the things that concern us; undefined: nothing. */
export interface PeerSettings {
  initialWindow?: number;
  frameBytesMax?: number;
  specialised?: boolean;
}

/** Most settings in one frame; real peers send fewer than ten. */
const SETTINGS_MAX = 64;

/** @throws Http2Error */
export function parseSettings(payload: Buffer): PeerSettings {
  if (payload.length % 6 !== 0 || payload.length > SETTINGS_MAX * 6) {
    throw new Http2Error(H2_ERROR.FRAME_SIZE_ERROR, `SETTINGS of ${payload.length} bytes`);
  }
  const settings: PeerSettings = {};
  for (let at = 0; at < payload.length; at += 6) {
    const id = payload.readUInt16BE(at);
    const value = payload.readUInt32BE(at + 2);
    if (id === SETTING.INITIAL_WINDOW_SIZE) {
      if (value > WINDOW_BYTES_LIMIT) {
        throw new Http2Error(H2_ERROR.FLOW_CONTROL_ERROR, `initial window of ${value}`);
      }
      settings.initialWindow = value;
    } else if (id === SETTING.MAX_FRAME_SIZE) {
      if (value < FRAME_BYTES_DEFAULT || value > FRAME_BYTES_LIMIT) {
        throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, `largest frame of ${value}`);
      }
      settings.frameBytesMax = value;
    } else if (id === SETTING.ENABLE_PUSH && value > 1) {
      throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, `push setting of ${value}`);
    } else if (id === SETTING.AUROCHS) settings.specialised = value > 0;
  }
  return settings;
}

/** Whether the payload of a SETTINGS frame carries our mark; never throws. */
export function hasMark(payload: Buffer): boolean {
  for (let at = 0; at + 6 <= payload.length; at += 6) {
    if (payload.readUInt16BE(at) === SETTING.AUROCHS) return payload.readUInt32BE(at + 2) > 0;
  }
  return false;
}
